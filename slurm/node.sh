#!/usr/bin/env bash
# One node's part of pretrain.sh: DeepSpeed's launcher starts the ranks of this node and gives back their exit code.
set -euo pipefail

# The wish to stop goes to all processes of a step. Shell and launcher inherit that it means nothing to them; the ranks
# save and leave.
trap '' USR1
# Another node's launcher has failed: end after this one, with the lowest of codes, as srun reports the highest.
trap 'exit 1' TERM

ranks=${DUALMASK_RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
  IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES" # those that Slurm gave to the job, which need not begin with 0
else
  devices=()
  for ((number = 0; number < ranks; number++)); do devices+=("$number"); done
fi
((${#devices[@]} >= ranks)) ||
  { echo "error: $ranks ranks on $(hostname), but only ${#devices[@]} devices: set DUALMASK_RANKS_PER_NODE" >&2; exit 2; }

# {"node1": ["0", "1"], …} in base64, as the launcher reads it; of other nodes only the number counts
slots=$(printf '"%s",' "${devices[@]:0:ranks}")
world=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&\":[${slots%,}]/" | paste -sd,)
world=$(printf '{%s}' "$world" | base64 -w0 | tr '+/' '-_')

threads=$((SRUN_CPUS_PER_TASK / ranks))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
python -m deepspeed.launcher.launch --quiet --world_info="$world" --node_rank="$SLURM_NODEID" \
  --master_addr="$MASTER_ADDR" --master_port="$MASTER_PORT" launcher/train.py --resume auto "$@"
