#!/usr/bin/env bash
# A Slurm of three nodes on this machine, each in namespaces of its own: host name, address, processes, /dev/shm.
#   cluster.sh up FOLDER | exec FOLDER COMMAND … (on the login host) | at FOLDER NODE COMMAND … | down FOLDER
#   cluster.sh off FOLDER NODE (as if its power failed) | on FOLDER NODE
# Needs root and the packages slurmctld, slurmd, slurm-client, munge and iproute2. Addresses are seen by nobody else.
# shellcheck disable=SC2016 # what stands in single quotes is for the inner shell
set -euo pipefail
action=$1 folder=$(realpath "$2")
shift 2
here=$(dirname "$(realpath "$0")")
export SLURM_CONF=$folder/slurm.conf
nodes=(node1 node2 node3)
net="dualmask-$(stat -c %i "$folder")" # namespaces are named after the folder, so several clusters can stand side by side

# nsenter, as "ip netns exec" mounts another /sys, of which slurmd dies
login() {
  nsenter --net="/run/netns/$net-login" unshare --mount --uts \
    bash -c 'hostname login; mount --bind "$0/hosts" /etc/hosts; exec "$@"' "$folder" "$@"
}

network() {
  printf '%s\n' "127.0.0.1 localhost" "10.77.0.254 login" >"$folder/hosts"
  ip netns add "$net-login"
  ip -n "$net-login" link set lo up
  ip -n "$net-login" link add switch type bridge
  ip -n "$net-login" addr add 10.77.0.254/24 dev switch
  ip -n "$net-login" link set switch up
  for node in "${nodes[@]}"; do
    echo "10.77.0.${node#node} $node" >>"$folder/hosts"
    ip netns add "$net-$node"
    ip -n "$net-$node" link set lo up
    ip -n "$net-login" link add "$node" type veth peer name eth0 netns "$net-$node"
    ip -n "$net-login" link set "$node" master switch up
    ip -n "$net-$node" addr add "10.77.0.${node#node}/24" dev eth0
    ip -n "$net-$node" link set eth0 up
  done
}

# the node's init is a shell in a process namespace: when that dies, all of the node dies
on() {
  ip -n "$net-login" link set "$1" up
  nsenter --net="/run/netns/$net-$1" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc bash -c '
    hostname "$1"; mount --bind "$0/hosts" /etc/hosts; mount -t tmpfs none /dev/shm
    mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray
    slurmd -N "$1" -b; while :; do sleep 1000 & wait $!; done' "$folder" "$1" </dev/null >"$folder/log/$1.out" 2>&1 &
  echo $! >"$folder/$1.pid"
}

# the network goes first: nobody hears that the processes have ended
off() {
  ip -n "$net-login" link set "$1" down
  kill -9 "$(<"$folder/$1.pid")" # unshare: --kill-child
  rm "$folder/$1.pid"
}

at() {
  local init
  init=$(pgrep -P "$(<"$folder/$1.pid")")
  shift
  exec nsenter --target "$init" --mount --uts --ipc --net --pid --wd="$PWD" "$@"
}

up() {
  mkdir -p "$folder"/{munge,state,log}
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
  sed "s#@D@#$folder#g" "$here/slurm.conf.in" >"$SLURM_CONF"
  network
  munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  login slurmctld
  for node in "${nodes[@]}"; do
    mkdir -p "$folder/spool/$node"
    on "$node"
  done
  for _ in $(seq 300); do
    if [[ $(login sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l) -eq ${#nodes[@]} ]]; then return 0; fi
    sleep 0.2
  done
  echo "the nodes did not come up: $(login sinfo -N -l 2>&1)" >&2
  tail -n 20 "$folder"/log/* >&2
  return 1
}

down() {
  for node in "${nodes[@]}"; do
    if [[ -s $folder/$node.pid ]]; then off "$node" || true; fi
  done
  for file in "$folder/slurmctld.pid" "$folder/munge/pid"; do
    if [[ -s $file ]]; then kill "$(<"$file")" || true; fi
  done
  for name in login "${nodes[@]}"; do
    if [[ -e /run/netns/$net-$name ]]; then ip netns del "$net-$name"; fi
  done
}

case $action in
  up | down) "$action" ;;
  on | off | at) "$action" "$@" ;;
  exec) login "$@" ;;
  *) sed -n 3,4p "$0" && exit 2 ;;
esac
