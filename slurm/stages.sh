#!/usr/bin/env bash
# The stages of a curriculum, one job each, as a job array. Arguments, output and restarts are those of pretrain.sh:
#   sbatch --array=0-3%1 --nodes=4 --gpus-per-node=8 slurm/stages.sh --config configs/X.yaml
# Job N trains what is missing up to the end of stage N and exports the model of that stage. %1: one job at a time.
#SBATCH --job-name=dualmask
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.out
#SBATCH --signal=B:USR1@180
set -euo pipefail
[[ -f slurm/common.sh ]] || { echo "error: $PWD is not the root of the checkout: submit from there" >&2; exit 2; }
source slurm/common.sh
: "${SLURM_ARRAY_TASK_ID:?submit this script with sbatch --array=0-N%1}"
train --stages $((SLURM_ARRAY_TASK_ID + 1)) "$@"
