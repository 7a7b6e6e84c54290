#!/usr/bin/env bash
# Trains with N processes on this machine, which meet and work together as those of N hosts do:
#   launch/local_pod.sh N [flags of bertjax.train]
# Shows what process 0 says; what another one says gets its number in front. Ctrl-C and SIGTERM reach all. XLA_FLAGS,
# e.g. --xla_force_host_platform_device_count=4, hold for each process. PYTHON names a Python that has bertjax;
# without it .venv is set up.
set -uo pipefail
if ((BASH_VERSINFO[0] < 5)); then
  echo "error: launch/local_pod.sh needs bash 5; this is $BASH_VERSION" >&2
  exit 2
fi
if [[ ! "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  echo "error: launch/local_pod.sh N [flags of bertjax.train]; N is the number of processes" >&2
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

set -m  # each process in a group of its own, so that Ctrl-C comes to it once, from here
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
  while [[ -n "$signalled" ]]; do  # a signal ends the waiting before the process ends
    signalled=
    wait -f "${pids[number]}" 2> /dev/null  # -f: not for a process that is merely suspended
    status=$?
  done
  if ((status > 128)); then
    echo "process $number was ended by signal $((status - 128))" >&2
  fi
  if ((status != 0 && code == 0)); then code=$status; fi
done
exit "$code"
