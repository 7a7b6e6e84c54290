#!/usr/bin/env bash
# Runs on a machine of a pod (Linux): keeps one bertjax.train going there, whether or not anyone is connected.
#   bash launch/worker.sh install EXTRA    .venv with this extra; a Python that is new enough is fetched where none is
#   bash launch/worker.sh start [FLAG …]   ends what is left of an earlier run, starts bertjax.train in the background
#   bash launch/worker.sh follow           shows the log until the run ends
#   bash launch/worker.sh status           one of: none, running, finished, stopped (by stop), unfinished (by a signal from
#                                          elsewhere), refused (bad input), failed CODE
#   bash launch/worker.sh stop             SIGTERM: it saves and leaves
#   bash launch/worker.sh run [FLAG …]     start and follow; ends with 0 when all steps are done, with 75 where they are not
set -euo pipefail
cd "$(dirname "$0")/.."
STATE="${BERTJAX_STATE:-$HOME/.bertjax}"
PATIENCE=600 # seconds to save in, once it was told to stop
mkdir -p "$STATE"

install() {
  local python
  for python in python3 python3.13 python3.12 python3.11 ''; do
    if [[ "$python" ]] && "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null; then break; fi
  done
  if [[ -z "$python" ]]; then
    # The Ubuntu 22.04 of Cloud TPU has Python 3.10.
    python3 -m pip install --quiet --user uv
    python3 -m uv python install --quiet 3.12
    python="$(cd / && python3 -m uv python find 3.12)" # from there it does not find our own .venv
  fi
  . launch/environment.sh
  PYTHON3="$python" ensure_environment "$1"
}

# The run holds a lock as long as any of its processes lives.
running() { ! flock --shared --nonblock "$STATE/lock" true; }

signal() { kill -s "$1" -- "-$(< "$STATE/pid")" 2> /dev/null || true; }

stop() {
  local deadline=$((SECONDS + PATIENCE))
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
  trap : TERM # which the group gets: bash waits for train to save
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
    echo unfinished # the machine went down
  elif ((code == 0)); then
    if says_continue; then echo unfinished; else echo finished; fi
  elif ((code == 2)) && ! says_continue; then
    echo refused
  else
    echo "failed $code"
  fi
}

# What train says last where it was stopped, or where others are missing, lost or out of reach; not at bad input.
says_continue() { tail --lines=20 "$STATE/log" | grep --quiet 'the same command'; }

run() {
  local leaving=''
  trap 'leaving=yes; signal TERM' TERM
  start "$@"
  if [[ "$leaving" ]]; then signal TERM; fi # it may have come too early for the run to get it
  follow &
  while kill -0 $! 2> /dev/null; do wait $! || true; done # a signal ends a wait, not what is waited for
  case "$(status)" in
    finished) ;;
    refused | failed*) exit "$(< "$STATE/exit")" ;;
    *) exit 75 ;;
  esac
}

case "${1:-}" in
  install | start | supervise | follow | status | stop | run) "$@" ;;
  *) echo "error: bash launch/worker.sh install|start|follow|status|stop|run, not '${1:-}'" >&2 && exit 2 ;;
esac
