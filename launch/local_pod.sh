#!/usr/bin/env bash
# Trains with N processes on this machine, which communicate like the processes of N hosts:
#   launch/local_pod.sh N [flags of bertjax.train]
# Prints the output of process 0 as it is, and that of the others with their rank in front. Forwards Ctrl-C and SIGTERM
# to all. XLA_FLAGS, e.g. --xla_force_host_platform_device_count=4, apply to each process. PYTHON names a Python with
# bertjax; by default .venv is set up and used.
set -uo pipefail
if ((BASH_VERSINFO[0] < 5)); then
  echo "error: launch/local_pod.sh: needs bash 5, this is $BASH_VERSION; install bash 5" >&2
  exit 2
fi
if [[ ! "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  echo "error: usage: launch/local_pod.sh N [flags of bertjax.train]; N is the number of processes" >&2
  exit 2
fi
processes="$1"
shift
if [[ -z "${PYTHON:-}" ]]; then
  . "$(dirname "$0")/environment.sh"
  ensure_environment || exit
fi
export JAX_PLATFORMS=cpu JAX_NUM_PROCESSES="$processes"
port="$("$PYTHON" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')" || exit
export JAX_COORDINATOR_ADDRESS="127.0.0.1:$port"

set -m  # one process group per process: each receives Ctrl-C once, from this script
pids=() signalled=
for ((number = 0; number < processes; number++)); do
  if ((number == 0)); then
    JAX_PROCESS_ID=0 "$PYTHON" -m bertjax.train "$@" &
  else
    JAX_PROCESS_ID=$number "$PYTHON" -m bertjax.train "$@" > >(sed -u "s/^/[$number] /" >&2) 2>&1 &
  fi
  pids+=($!)
done
trap 'signalled=1; kill -TERM "${pids[@]}" 2> /dev/null' TERM
trap 'signalled=1; kill -INT "${pids[@]}" 2> /dev/null' INT

code=0
for number in "${!pids[@]}"; do
  signalled=1
  while [[ -n "$signalled" ]]; do  # a signal ends `wait` before the process ends
    signalled=
    wait -f "${pids[number]}" 2> /dev/null  # -f: a suspended process has not ended
    status=$?
  done
  if ((status > 128)); then
    echo "process $number: killed by signal $((status - 128))" >&2
  fi
  if ((status != 0 && code == 0)); then code=$status; fi
done
exit "$code"
