#!/bin/bash
# Fake of the cluster programs, installed under each of their names: records calls under $STAND_INS and replays results.
# A worker of a pod is a folder there, its home directory, in which a shell runs the commands for ssh. python imitates
# bertjax.train.
set -euo pipefail
NAME="$(basename "$0")"

# Prints the first line of the file $1 and removes it, except for the last line.
next() {
  (
    flock 8
    head -n 1 "$STAND_INS/$1"
    if (($(wc -l < "$STAND_INS/$1") > 1)); then sed -i 1d "$STAND_INS/$1"; fi
  ) 8> "$STAND_INS/turn"
}

option() {
  local word
  for word in "${WORDS[@]}"; do
    if [[ "$word" == "--$1="* ]]; then printf '%s' "${word#*=}"; fi
  done
}

workers() { if [[ "$(option worker)" == all ]]; then echo 0 1; else option worker; fi; }

gcloud() {
  local worker state
  if [[ "$3" == tpu-vm && "$(cat "$STAND_INS/state")" != ACTIVE ]]; then echo "ERROR: (gcloud) no slice" >&2 && exit 1; fi
  case "$3 $4" in
    'queued-resources describe')
      state="$(next states)"
      echo "$state" > "$STAND_INS/state"
      if [[ "$state" == NOT_FOUND ]]; then echo "ERROR: (gcloud) NOT_FOUND: no $5" >&2 && exit 1; fi
      echo "$state"
      ;;
    'queued-resources create') if [[ -f "$STAND_INS/quota" ]]; then cat "$STAND_INS/quota" >&2 && exit 1; fi ;;
    'queued-resources delete') rm -rf "$STAND_INS"/worker* ;;
    'tpu-vm scp')
      for worker in $(workers); do
        mkdir -p "$STAND_INS/worker$worker"
        cp "$5" "$STAND_INS/worker$worker/${6#*:}"
      done
      ;;
    'tpu-vm ssh')
      if [[ "$(option command)" == *follow && -f "$STAND_INS/lost" ]]; then rm "$STAND_INS/lost" && exit 255; fi
      for worker in $(workers); do
        mkdir -p "$STAND_INS/worker$worker"
        (cd "$STAND_INS/worker$worker" && HOME="$PWD" bash -c "$(option command)")
      done
      ;;
  esac
}

python() {
  case "$1 $2" in
    '-m venv') mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    '-m bertjax.train')
      case "$(next plays)" in
        finish) echo "wrote all there is" ;;
        refuse) echo "error: config.sede is not known" >&2 && exit 2 ;;
        lose) echo "error: process 1 is lost; the same command on all hosts continues from the last checkpoint" >&2 && exit 2 ;;
        wait)
          trap 'echo "stopped at step 5 of 9, saved in runs; the same command continues" && exit' TERM
          echo $$ >> "$STAND_INS/training"
          while true; do sleep 0.05; done
          ;;
      esac
      ;;
  esac
}

WORDS=("$NAME" "$@")
(flock 8 && printf '%s\0' "${WORDS[@]}" && echo) >> "$STAND_INS/calls" 8> "$STAND_INS/turn"
case "$NAME" in
  gcloud) gcloud "$@" ;;
  python | python3) python "$@" ;;
  kubectl) cat > "$STAND_INS/manifest" ;;
  srun) while [[ "$1" == --* ]]; do shift; done && "$@" ;;
  scancel) kill -s "$(option signal)" "$(tail -n 1 "$STAND_INS/training")" ;;
esac
