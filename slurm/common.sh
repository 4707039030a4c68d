#!/usr/bin/env bash
# What the job scripts of this folder share; they source it. Site, hosts, rendezvous, and how a job has several lives.
: "${SLURM_JOB_ID:?submit this script with sbatch}"
site=${DUALMASK_SLURM_ENV:-slurm/env.sh}
# shellcheck source=/dev/null
if [[ -f $site ]]; then source "$site"; fi
restarts=${SLURM_RESTART_COUNT:-0}
most_restarts=${DUALMASK_MAX_RESTARTS:-20}
patience=${DUALMASK_PATIENCE:-150} # seconds to end a step and save; less than --signal leaves
export DUALMASK_GRACE=${DUALMASK_GRACE:-30} # seconds to end by itself, for a rank that lost another

# Static rendezvous. The first host has rank 0; a world that met on localhost would be one node working alone.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*}
[[ -n $MASTER_ADDR ]] || { echo "error: Slurm names no host for job $SLURM_JOB_ID" >&2; exit 2; }
# a port of its own for each job and each of its lives, below those that Linux gives to clients
export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 31 + restarts) % 10000))
# srun does not take over --cpus-per-task by itself, and would bind all processes of a node to one core
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}

# Ends this life and asks for the next. Nothing comes back from scontrol: it kills this script, too.
requeue() {
  if ((restarts >= most_restarts)); then
    echo "slurm: $1, but $restarts restarts are enough (DUALMASK_MAX_RESTARTS)" >&2
  elif [[ $(scontrol --oneliner show job "$SLURM_JOB_ID") != *" Restarts=$restarts "* ]]; then
    echo "slurm: $1, but Slurm has taken this node for lost and the job lives on elsewhere" >&2
  else
    echo "slurm: $1; starting again"
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60
  fi
}

# Trains with the arguments of launcher/train.py and ends the script: with the exit code of the training, or a requeue.
train() {
  local step code asked=0 # when the wish to stop came, in seconds of this life
  rm -f ".dualmask-$SLURM_JOB_ID-"*
  export DUALMASK_ERRORS=$PWD/.dualmask-$SLURM_JOB_ID-$restarts # of this life: srun would tell of the killed ones only
  : >"$DUALMASK_ERRORS"
  trap 'asked=$((SECONDS + 1)); echo "slurm: asked to save and to leave"' USR1
  echo "slurm: life $restarts on $SLURM_JOB_NODELIST, rank 0 at $MASTER_ADDR:$MASTER_PORT"
  # no node is killed for the failure of another at once: the code of its ranks may be the one that tells why
  srun --label --kill-on-bad-exit=0 --wait="$DUALMASK_GRACE" bash slurm/node.sh "$@" &
  step=$!
  while kill -0 "$step" 2>/dev/null; do
    if ((asked == 0)); then
      wait "$step" || true # ends early on a signal
    elif ((SECONDS - asked < patience)); then
      kill -USR1 "$step" 2>/dev/null || true # srun hands it on; again and again, for ranks that were just starting
      sleep 3
    else
      requeue "nothing was saved in time, the last checkpoint has to do"
      exit 75
    fi
  done
  code=0
  wait "$step" || code=$?
  # a rank's own error would come back; without one, what was stopped, killed or lost may go on
  if [[ -s $DUALMASK_ERRORS ]]; then
    code=$(sort -n "$DUALMASK_ERRORS" | tail -n 1)
  elif ((code != 0)); then
    requeue "training ended with exit code $code"
  fi
  rm -f "$DUALMASK_ERRORS"
  exit "$code"
}
