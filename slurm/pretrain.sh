#!/usr/bin/env bash
# Training on a Slurm cluster, with the arguments of launcher/train.py:
#   sbatch --nodes=4 --gpus-per-node=8 slurm/pretrain.sh --config configs/X.yaml --set output=/shared/runs/x
# Submit it from the root of the checkout; that, the data and the run's output lie where all nodes see them.
# What a site needs (partition's modules, network, environment) stands in slurm/env.sh: see env.sh.example.
#SBATCH --job-name=dualmask
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
# one log over all lives of the job
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# three minutes before the time is up this script (B:), not the ranks, is told
#SBATCH --signal=B:USR1@180
set -euo pipefail

: "${SLURM_JOB_ID:?submit this script with sbatch}"
[[ -f launcher/train.py && -f slurm/node.sh ]] ||
  { echo "error: $PWD is not the root of the checkout: submit from there" >&2; exit 2; }
site=${DUALMASK_SLURM_ENV:-slurm/env.sh}
# shellcheck source=/dev/null
if [[ -f $site ]]; then source "$site"; fi
restarts=${SLURM_RESTART_COUNT:-0}
most_restarts=${DUALMASK_MAX_RESTARTS:-20}
patience=${DUALMASK_PATIENCE:-150} # seconds to end a step and save; less than --signal leaves

# Static rendezvous. The first host has rank 0; a world that met on localhost would be one node training alone.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*}
[[ -n $MASTER_ADDR ]] || { echo "error: Slurm names no host for job $SLURM_JOB_ID" >&2; exit 2; }
# a port of its own for each job and each of its lives, below those that Linux gives to clients
export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 31 + restarts) % 10000))
# srun does not take over --cpus-per-task by itself, and would bind all ranks of a node to one core
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}

# Ends this life and asks for the next. Nothing comes back from scontrol: it kills this script, too.
requeue() {
  if ((restarts >= most_restarts)); then
    echo "pretrain: $1, but $restarts restarts are enough (DUALMASK_MAX_RESTARTS)" >&2
    return
  fi
  echo "pretrain: $1; starting again"
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60
}

asked=0 # when the wish to stop came, in seconds of this life
trap 'asked=$((SECONDS + 1))' USR1
echo "pretrain: life $restarts on $SLURM_JOB_NODELIST, rank 0 at $MASTER_ADDR:$MASTER_PORT"
# a node's launcher that fails takes the others along at once, one that ends gives them a minute
srun --label --kill-on-bad-exit=1 --wait=60 bash slurm/node.sh "$@" &
step=$!
code=0
while kill -0 "$step" 2>/dev/null; do
  if ((asked == 0)); then
    code=0
    wait "$step" || code=$? # ends early on a signal
  elif ((SECONDS - asked < patience)); then
    kill -USR1 "$step" 2>/dev/null || true # srun hands it on; again and again, for ranks that were just starting
    sleep 3
  else
    requeue "nothing was saved in time, the last checkpoint has to do"
    exit 75
  fi
done

if ((asked > 0)); then
  code=0
  wait "$step" || code=$?
fi
# 1 and 2 are errors that come back: training or configuration. Above 128 something was killed.
if ((code == 75 || code > 128)) || ((asked > 0 && code != 0 && code != 2)); then
  requeue "training ended with exit code $code"
fi
exit "$code"
