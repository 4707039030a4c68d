#!/usr/bin/env bash
# The launcher of one node: starts the ranks of this node, and exits when all have ended, with their highest exit code.
# The exit code of a rank that failed by itself is written to $DUALMASK_ERRORS; 75 (stopped on request, or lost another
# rank) and codes above 128 (killed) are not, because they may be consequences of an error on another node.
set -euo pipefail

# A request to stop (USR1; TERM at a preemption) goes to all processes of a step. This shell ignores it and ends when
# the ranks have saved and exited; the ranks inherit that it is ignored until they install their handlers.
trap '' USR1 TERM

ranks=${DUALMASK_RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
  IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES"
  if ((${#devices[@]} < ranks)); then
    echo "error: $ranks ranks on $(hostname), but ${#devices[@]} devices: set DUALMASK_RANKS_PER_NODE" >&2
    echo 2 >>"$DUALMASK_ERRORS"
    exit 2
  fi
fi
threads=$((SRUN_CPUS_PER_TASK / ranks))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
export WORLD_SIZE=$((SLURM_NNODES * ranks)) LOCAL_WORLD_SIZE=$ranks

pids=()
for ((rank = 0; rank < ranks; rank++)); do
  RANK=$((SLURM_NODEID * ranks + rank)) LOCAL_RANK=$rank python -u launcher/train.py --resume auto "$@" &
  pids+=($!)
done

highest=0 reaper=
for _ in "${pids[@]}"; do
  code=0
  wait -n || code=$?
  if ((code > highest)); then highest=$code; fi
  if ((code != 0 && code != 75 && code <= 128)); then echo "$code" >>"$DUALMASK_ERRORS"; fi
  if ((code != 0)) && [[ -z $reaper ]]; then # the others may wait for ever for the one that has exited
    { sleep "$DUALMASK_GRACE" && kill -9 "${pids[@]}"; } &>/dev/null &
    reaper=$!
    disown "$reaper"
  fi
done
if [[ -n $reaper ]]; then kill "$reaper" || true; fi
exit "$highest"
