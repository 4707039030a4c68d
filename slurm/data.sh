#!/usr/bin/env bash
# The data pipeline on all nodes of one job, with the arguments of dualmask data build:
#   sbatch --nodes=4 --cpus-per-task=64 slurm/data.sh --config configs/data/X.yaml --set output=/shared/data/x
# Ray's head and the build run on the first node. What the build reads and writes lies where all nodes see it.
# A build that ended early goes on where it was when this is submitted again.
#SBATCH --job-name=dualmask-data
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail
[[ -f slurm/common.sh ]] || { echo "error: $PWD is not the root of the checkout: submit from there" >&2; exit 2; }
source slurm/common.sh

# Ray talks over the cluster's network; only who has this job's token is heard
umask 077
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | base64 | tr -d '/+=\n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0 RAY_ADDRESS=$MASTER_ADDR:$MASTER_PORT
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${DUALMASK_PATIENCE:-150}
srun --label --kill-on-bad-exit=1 --wait=10 ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_NNODES" \
  --num-cpus "$SRUN_CPUS_PER_TASK" --include-dashboard=false -- python -m launcher.command data build "$@"
