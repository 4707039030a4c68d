#!/usr/bin/env bash
# One node of the Ray cluster of data.sh; runs until it is terminated.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=120
# The ports of Ray's agents are fixed: a node that has to discover them gives up after 15 s, too soon for a busy file
# system (github.com/ray-project/ray/issues/65983).
options=(--block --num-cpus="$SRUN_CPUS_PER_TASK"
  --dashboard-agent-listen-port=$((MASTER_PORT + 1)) --dashboard-agent-grpc-port=$((MASTER_PORT + 2))
  --metrics-export-port=$((MASTER_PORT + 3)) --runtime-env-agent-port=$((MASTER_PORT + 4)))
if ((SLURM_NODEID == 0)); then
  address=$(getent ahostsv4 "$MASTER_ADDR" | awk 'NR == 1 { print $1 }')
  exec ray start >/dev/null --head --node-ip-address="$address" --port="$MASTER_PORT" --include-dashboard=false "${options[@]}"
fi
until ray health-check --address="$RAY_ADDRESS" &>/dev/null; do sleep 1; done
exec ray start >/dev/null --address="$RAY_ADDRESS" "${options[@]}"
