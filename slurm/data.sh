#!/usr/bin/env bash
# The data pipeline on all nodes of one job, with the arguments of dualmask data build:
#   sbatch --nodes=4 --cpus-per-task=64 slurm/data.sh --config configs/data/X.yaml --set output=/shared/data/x
# Ray's head and the build run on the first node. Input and output must be on a file system that all nodes see.
# A build that ended early continues where it stopped when the job is submitted again.
#SBATCH --job-name=dualmask-data
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail
[[ -f slurm/common.sh ]] || { echo "error: $PWD is not the root of the checkout: submit from there" >&2; exit 2; }
source slurm/common.sh

# Ray communicates over the cluster's network: it accepts only connections with the token of this job
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_ADDRESS=$MASTER_ADDR:$MASTER_PORT DUALMASK_RAY_NODES=$SLURM_NNODES
echo "slurm: Ray on $SLURM_JOB_NODELIST, head at $RAY_ADDRESS"
srun --label --kill-on-bad-exit=1 bash slurm/ray.sh &
cluster=$!
code=0
python -m launcher.command data build "$@" || code=$?
if kill "$cluster"; then wait "$cluster" || true; fi
exit "$code"
