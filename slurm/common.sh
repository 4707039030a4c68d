#!/usr/bin/env bash
# Sourced by the job scripts of this folder: settings of the site, hosts, rendezvous, and restarts of a job.
: "${SLURM_JOB_ID:?submit this script with sbatch}"
site=${DUALMASK_SLURM_ENV:-slurm/env.sh}
# shellcheck source=/dev/null
if [[ -f $site ]]; then source "$site"; fi
restarts=${SLURM_RESTART_COUNT:-0}
most_restarts=${DUALMASK_MAX_RESTARTS:-20}
patience=${DUALMASK_PATIENCE:-150} # seconds to end a step and save; fewer than those of --signal
export DUALMASK_GRACE=${DUALMASK_GRACE:-30} # seconds in which a rank that lost another one may end by itself

# Static rendezvous. The first host has rank 0; with localhost, each node would train alone.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*}
[[ -n $MASTER_ADDR ]] || { echo "error: Slurm names no host for job $SLURM_JOB_ID" >&2; exit 2; }
# a different port for each job and each restart, below the range that Linux assigns to clients
export MASTER_PORT=$((20000 + (SLURM_JOB_ID * 31 + restarts) % 10000))
# srun does not inherit --cpus-per-task, and would bind all processes of a node to one core
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}

# Requeues the job, so that Slurm restarts it. scontrol does not return: the requeue kills this script, too.
requeue() {
  if ((restarts >= most_restarts)); then
    echo "slurm: $1, but the limit of $most_restarts restarts is reached (DUALMASK_MAX_RESTARTS)" >&2
  elif [[ $(scontrol --oneliner show job "$SLURM_JOB_ID") != *" Restarts=$restarts "* ]]; then
    echo "slurm: $1, but Slurm considers this node lost and has restarted the job elsewhere" >&2
  else
    echo "slurm: $1; starting again"
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60
  fi
}

# Trains with the arguments of launcher/train.py and ends the script with the exit code of the training, or a requeue.
train() {
  local step code stop_time=0 # when the request to stop came, in seconds since the start of this script
  rm -f ".dualmask-$SLURM_JOB_ID-"*
  export DUALMASK_ERRORS=$PWD/.dualmask-$SLURM_JOB_ID-$restarts # errors of ranks; srun reports only the killed ones
  : >"$DUALMASK_ERRORS"
  trap 'stop_time=$((SECONDS + 1)); echo "slurm: requested to save and to stop"' USR1
  echo "slurm: restart $restarts on $SLURM_JOB_NODELIST, rank 0 at $MASTER_ADDR:$MASTER_PORT"
  # if a node fails, the others are not killed at once: the exit codes of their ranks may tell the cause
  srun --label --kill-on-bad-exit=0 --wait="$DUALMASK_GRACE" bash slurm/node.sh "$@" &
  step=$!
  while kill -0 "$step" 2>/dev/null; do
    if ((stop_time == 0)); then
      wait "$step" || true # ends early on a signal
    elif ((SECONDS - stop_time < patience)); then
      kill -USR1 "$step" 2>/dev/null || true # srun forwards it; repeated for ranks that were just starting
      sleep 3
    else
      requeue "nothing was saved in time, the last checkpoint will be used"
      exit 75
    fi
  done
  code=0
  wait "$step" || code=$?
  # a rank's own error would recur; a job whose ranks were only stopped, killed or lost can be restarted
  if [[ -s $DUALMASK_ERRORS ]]; then
    code=$(sort -n "$DUALMASK_ERRORS" | tail -n 1)
  elif ((code != 0)); then
    requeue "training ended with exit code $code"
  fi
  rm -f "$DUALMASK_ERRORS"
  exit "$code"
}
