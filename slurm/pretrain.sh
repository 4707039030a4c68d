#!/usr/bin/env bash
# Training on a Slurm cluster, with the arguments of launcher/train.py:
#   sbatch --nodes=4 --gpus-per-node=8 slurm/pretrain.sh --config configs/X.yaml --set output=/shared/runs/x
# Submit it from the root of the checkout. Checkout, data and output must be on a file system that all nodes see.
# The settings of the site (modules, network, environment) are in slurm/env.sh: see env.sh.example.
#SBATCH --job-name=dualmask
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
# one log over all restarts of the job
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# three minutes before the time limit Slurm sends USR1 to this script (B:), not to the ranks
#SBATCH --signal=B:USR1@180
set -euo pipefail
[[ -f slurm/common.sh ]] || { echo "error: $PWD is not the root of the checkout: submit from there" >&2; exit 2; }
source slurm/common.sh
train "$@"
