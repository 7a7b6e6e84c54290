#!/usr/bin/env bash
# Runs on a host of a pod (Linux): keeps one bertjax.train running in the background, independent of the connection.
#   bash launch/worker.sh install EXTRA    sets up .venv with this extra; downloads Python if the host's is too old
#   bash launch/worker.sh start [FLAG …]   ends an earlier run and starts bertjax.train in the background
#   bash launch/worker.sh follow           prints the log until the run ends
#   bash launch/worker.sh status           prints none, running, finished, stopped (by stop), unfinished (by another
#                                          signal), refused (invalid input) or failed CODE
#   bash launch/worker.sh stop             sends SIGTERM: the run saves and exits
#   bash launch/worker.sh run [FLAG …]     starts and follows; exits with 0 if all steps are done, with 75 if not
set -euo pipefail
cd "$(dirname "$0")/.."
STATE="${BERTJAX_STATE:-$HOME/.bertjax}"
GRACE=600 # seconds for saving after SIGTERM
mkdir -p "$STATE"

install() {
  local python
  for python in python3 python3.13 python3.12 python3.11 ''; do
    if [[ "$python" ]] && "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null; then break; fi
  done
  if [[ -z "$python" ]]; then
    # Ubuntu 22.04 of Cloud TPU has Python 3.10.
    python3 -m pip install --quiet --user uv
    python3 -m uv python install --quiet 3.12
    python="$(cd / && python3 -m uv python find 3.12)" # outside the repository, to skip its .venv
  fi
  . launch/environment.sh
  PYTHON3="$python" ensure_environment "$1"
}

# The processes of a run hold a lock until the last one ends.
running() { ! flock --shared --nonblock "$STATE/lock" true; }

signal() { kill -s "$1" -- "-$(< "$STATE/pid")" 2> /dev/null || true; }

stop() {
  local deadline=$((SECONDS + GRACE))
  touch "$STATE/stop"
  if running; then signal TERM; fi
  while running; do
    if ((SECONDS > deadline)); then signal KILL; fi
    sleep 0.2
  done
}

start() {
  if running; then stop; fi
  rm -f "$STATE/stop" "$STATE/exit"
  : > "$STATE/log"
  setsid bash launch/worker.sh supervise "$@" > "$STATE/log" 2>&1 < /dev/null 9> "$STATE/lock" &
  echo $! > "$STATE/pid"
  until running || ! kill -0 $! 2> /dev/null; do sleep 0.05; done
}

supervise() {
  local code=0
  flock 9
  trap : TERM # the whole group receives it: bash waits until train has saved
  PYTHONUNBUFFERED=1 "${PYTHON:-.venv/bin/python}" -m bertjax.train "$@" || code=$?
  echo "$code" > "$STATE/exit"
}

follow() {
  tail --lines=50 --follow --sleep-interval=0.2 --pid="$(< "$STATE/pid")" "$STATE/log"
}

status() {
  local code=none
  if [[ -f "$STATE/exit" ]]; then code="$(< "$STATE/exit")"; fi
  if [[ ! -f "$STATE/pid" ]]; then
    echo none
  elif running; then
    echo running
  elif [[ -f "$STATE/stop" ]]; then
    echo stopped
  elif [[ "$code" == none ]]; then
    echo unfinished # the host went down
  elif ((code == 0)); then
    if can_continue; then echo unfinished; else echo finished; fi
  elif ((code == 2)) && ! can_continue; then
    echo refused
  else
    echo "failed $code"
  fi
}

# Whether the last lines of the log say that the same command continues: after a stop, or if other processes are
# missing, lost or unreachable, but not after invalid input.
can_continue() { tail --lines=20 "$STATE/log" | grep --quiet 'the same command'; }

run() {
  local leaving=''
  trap 'leaving=yes; signal TERM' TERM
  start "$@"
  if [[ "$leaving" ]]; then signal TERM; fi # the first signal may have come before the run could receive it
  follow &
  while kill -0 $! 2> /dev/null; do wait $! || true; done # a signal ends `wait`, not the process
  case "$(status)" in
    finished) ;;
    refused | failed*) exit "$(< "$STATE/exit")" ;;
    *) exit 75 ;;
  esac
}

case "${1:-}" in
  install | start | supervise | follow | status | stop | run) "$@" ;;
  *) echo "error: ${1:-no action}: expected install, start, follow, status, stop or run; see the top of launch/worker.sh" >&2 && exit 2 ;;
esac
