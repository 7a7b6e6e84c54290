#!/usr/bin/env bash
# Trains on a Cloud TPU slice, through gcloud: creates the queued resource or takes the one that is there, waits for it,
# copies the committed code to all workers, installs it, starts bertjax.train on all of them and follows worker 0's log.
# When the slice is preempted, a new one is asked for and the run continues. Ctrl-C only ends the watching; the same
# command watches again.
#
#   bash launch/tpu_pod.sh run FLAGS -- --config=configs/large.py --workdir=DIR [flags of bertjax.train]
#   bash launch/tpu_pod.sh stop FLAGS      saves a checkpoint and ends the run; the slice stays, and costs
#   bash launch/tpu_pod.sh delete FLAGS    deletes the slice and what is on its disks
#
# FLAGS (those in capitals may stand in the environment instead):
#   --project=ID            PROJECT
#   --zone=ZONE             ZONE, e.g. us-west4-a
#   --accelerator-type=TYPE ACCELERATOR_TYPE, e.g. v5litepod-256
#   --runtime-version=NAME  RUNTIME_VERSION; left out, the one for the type
#   --name=NAME             of the queued resource and of the slice; bertjax
#   --spot, --reserved      instead of on demand
#   --setup=COMMAND         run on all workers before each start, e.g. to mount a file system; it may run again
#   --poll=SECONDS          between two looks at the state; 30
#   --dry-run               print the commands of a run that is not disturbed, and run none
set -euo pipefail
. "$(dirname "$0")/commands.sh"
PROJECT="${PROJECT:-}" ZONE="${ZONE:-}" ACCELERATOR_TYPE="${ACCELERATOR_TYPE:-}" RUNTIME_VERSION="${RUNTIME_VERSION:-}"
NAME=bertjax SPOT='' RESERVED='' SETUP='' POLL=30
WORKER='bash bertjax/launch/worker.sh'
PATIENCE=3 # failures with one slice, until we give up
FAILURES=0
BEGUN='' # whether the run was seen going, and has not failed since
REACHED='' # whether Google Cloud ever answered: then we do not give up because the network is away for a while
# What a dry run takes the answers to be.
SLICE=NONE WORK=none

main() {
  read_flags 'project zone accelerator-type runtime-version name setup poll' 'spot reserved' "$@"
  need project zone name
  PLACE=(--project="$PROJECT" --zone="$ZONE" --quiet)
  SSH=(gcloud compute tpus tpu-vm ssh "$NAME" "${PLACE[@]}")
  [[ "$POLL" =~ ^[0-9]+$ ]] || fail "--poll=$POLL is not a number of seconds"
  need_tool gcloud https://cloud.google.com/sdk/docs/install
  case "$ACTION" in
    run) run ;;
    stop) stop || fail "$TROUBLE; is $NAME there?" ;;
    delete) delete && say "$NAME is deleted" ;;
    *) fail "run, stop or delete? bash $0 --help shows the usage" ;;
  esac
}

# Whatever happens to the slice, to the run or to the connection: look at how things stand, and do what comes next.
run() {
  need accelerator-type
  need_train_flags
  [[ -z "$SPOT" || -z "$RESERVED" ]] || fail "--spot or --reserved, not both"
  RUNTIME_VERSION="${RUNTIME_VERSION:-$(runtime_of "$ACCELERATOR_TYPE")}"
  trap 'say "the run goes on unwatched; the same command watches it again, stop ends it" && exit 130' INT
  while true; do
    acquire
    if ! advance; then
      FAILURES=$((FAILURES + 1))
      ((FAILURES < PATIENCE)) || fail "gave up after $PATIENCE failures: $TROUBLE; $(again delete) ends the cost"
      sleep "$POLL"
    fi
  done
}

# Returns when the queued resource is ACTIVE.
acquire() {
  local created=''
  while true; do
    look
    case "$ANSWER" in
      ACTIVE) return ;;
      NONE) create && created=yes ;;
      FAILED | SUSPENDED)
        [[ "$ANSWER" != FAILED || -z "$created" ]] || fail "the queued resource $NAME was refused: gcloud compute tpus queued-resources describe $NAME says why"
        say "$NAME is $ANSWER; asking for a new one"
        delete
        ;;
      *) say "$NAME is $ANSWER; looking again in $POLL s" && sleep "$POLL" ;;
    esac
  done
}

look() {
  local describe=(gcloud compute tpus queued-resources describe "$NAME" "${PLACE[@]}" '--format=value(state.state)')
  until ask "$SLICE" 'look for the queued resource' "${describe[@]}"; do
    if [[ "$ERRORS" == *NOT_FOUND* ]]; then ANSWER=NONE && break; fi
    [[ "$REACHED" ]] || fail "could not look for the queued resource $NAME: $ERRORS"
    say "could not look for $NAME: $ERRORS; looking again in $POLL s"
    sleep "$POLL"
  done
  REACHED=yes
}

create() {
  must "create the queued resource $NAME" gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" \
    --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" \
    ${SPOT:+--spot} ${RESERVED:+--reserved} "${PLACE[@]}"
  SLICE=ACTIVE FAILURES=0
}

delete() { must "delete the slice $NAME" gcloud compute tpus queued-resources delete "$NAME" --force "${PLACE[@]}"; }

# on WORKERS WHAT COMMAND: a shell's command line, on one worker or on all.
on() { try "$2" "${SSH[@]}" --worker="$1" --command="$3" || { TROUBLE="could not $2" && return 1; }; }

# One step on with a slice that is there; exits at the run's end.
advance() {
  local status="$WORKER status 2> /dev/null || echo none"
  if ! ask "$WORK" 'see what worker 0 does' "${SSH[@]}" --worker=0 --command="$status"; then
    TROUBLE="worker 0 cannot be reached: $ERRORS" && return 1
  fi
  case "$BEGUN $ANSWER" in
    'yes finished') say "all steps are done; $(again delete) ends the cost" && exit ;;
    'yes stopped') say "the run was stopped; the same command continues it, $(again delete) ends the cost" && exit ;;
    'yes refused') refused && return ;;
    'yes failed'*) TROUBLE="bertjax.train $ANSWER; its log says why" && BEGUN='' && return 1 ;;
    *' running') say "$NAME is training" && FAILURES=0 ;;
    *) start || return 1 ;;
  esac
  BEGUN=yes
  on 0 "follow worker 0's log" "$WORKER follow"
}

# Bad input would be refused again. But a slice that is about to be taken away may show first in what train says.
refused() {
  sleep "$POLL"
  look
  [[ "$ANSWER" != ACTIVE ]] || fail "bertjax.train ended with the error above; $(again delete) ends the cost"
}

# One process that is told to leave takes all with it. That it was meant is noted on worker 0, so that comes first.
stop() {
  on 0 'save and stop the run' "$WORKER stop" && on all 'end what is left of it on any worker' "$WORKER stop"
}

# Brings the committed code and what it needs to all workers and starts the run there.
start() {
  local code="$ROOT/dist/bertjax.tar.gz" unpack
  # The run's own files may lie beside the code.
  unpack='mkdir -p bertjax && cd bertjax && rm -rf bertjax configs launch && tar -xzf ../bertjax.tar.gz'
  [[ -z "$(git -C "$ROOT" status --porcelain)" ]] || say "note: changes that are not committed are not copied"
  must 'make a folder for the code' mkdir -p "$ROOT/dist"
  must 'pack the commit' git -C "$ROOT" archive --format=tar.gz --output="$code" HEAD
  try 'copy the code to all workers' gcloud compute tpus tpu-vm scp "$code" "$NAME:bertjax.tar.gz" --worker=all \
    "${PLACE[@]}" || { TROUBLE='could not copy the code to all workers' && return 1; }
  on all 'install it on all workers' "$unpack && bash launch/worker.sh install tpu" || return 1
  if [[ "$SETUP" ]]; then on all 'set all workers up' "$SETUP" || return 1; fi
  on all 'start the run on all workers' "$WORKER start $(quoted "${TRAIN_FLAGS[@]}")" || return 1
  WORK=finished
}

again() { quoted bash "$0" "$1" --project="$PROJECT" --zone="$ZONE" --name="$NAME"; }

# https://cloud.google.com/tpu/docs/runtimes
runtime_of() {
  case "$1" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "no runtime version is known for $1; give --runtime-version" ;;
  esac
}

main "$@"
