#!/usr/bin/env bash
# A command of dualmask as a job on one node, for instance
#   sbatch --gpus-per-node=1 slurm/eval.sh eval reconstruction --model /shared/runs/x --data test.jsonl --json out.json
#SBATCH --job-name=dualmask-eval
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
set -euo pipefail
[[ -f slurm/common.sh ]] || { echo "error: $PWD is not the root of the checkout: submit from there" >&2; exit 2; }
source slurm/common.sh
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SRUN_CPUS_PER_TASK}
exec srun python -m launcher.command "$@"
