#!/usr/bin/env bash
# Trains on a Cloud TPU slice through gcloud: creates the queued resource or uses an existing one, waits for it, copies
# the committed code to all workers, installs it, starts bertjax.train on all of them and follows the log of worker 0.
# If the slice is preempted, the script requests a new one and continues the run. Ctrl-C stops following, not the run;
# the same command follows again.
#
#   bash launch/tpu_pod.sh run FLAGS -- --config=configs/large.py --workdir=DIR [flags of bertjax.train]
#   bash launch/tpu_pod.sh stop FLAGS      saves a checkpoint and stops the run; the slice remains and is billed
#   bash launch/tpu_pod.sh delete FLAGS    deletes the slice and its disks
#
# FLAGS (names in capitals are environment variables that set the default):
#   --project=ID            PROJECT
#   --zone=ZONE             ZONE, e.g. us-west4-a
#   --accelerator-type=TYPE ACCELERATOR_TYPE, e.g. v5litepod-256
#   --runtime-version=NAME  RUNTIME_VERSION; default: by accelerator type
#   --name=NAME             name of the queued resource and the slice; default: bertjax
#   --spot, --reserved      spot or reserved capacity; default: on demand
#   --setup=COMMAND         command for all workers before each start, e.g. to mount a file system; may run repeatedly
#   --poll=SECONDS          interval between state queries; default: 30
#   --dry-run               prints the commands of an undisturbed run without running them
set -euo pipefail
. "$(dirname "$0")/commands.sh"
PROJECT="${PROJECT:-}" ZONE="${ZONE:-}" ACCELERATOR_TYPE="${ACCELERATOR_TYPE:-}" RUNTIME_VERSION="${RUNTIME_VERSION:-}"
NAME=bertjax SPOT='' RESERVED='' SETUP='' POLL=30
WORKER='bash bertjax/launch/worker.sh'
MAX_FAILURES=3 # with one slice
FAILURES=0
BEGUN='' # whether the run was seen running and has not failed since
REACHED='' # whether a query ever succeeded; later network errors are retried
# Query results that a dry run assumes.
SLICE=NONE WORK=none

main() {
  read_flags 'project zone accelerator-type runtime-version name setup poll' 'spot reserved' "$@"
  need project zone name
  PLACE=(--project="$PROJECT" --zone="$ZONE" --quiet)
  SSH=(gcloud compute tpus tpu-vm ssh "$NAME" "${PLACE[@]}")
  [[ "$POLL" =~ ^[0-9]+$ ]] || fail "--poll=$POLL: expected a number of seconds"
  need_tool gcloud https://cloud.google.com/sdk/docs/install
  case "$ACTION" in
    run) run ;;
    stop) stop || fail "$NAME: $PROBLEM; check that the slice exists" ;;
    delete) delete && log "deleted $NAME" ;;
    *) fail "${ACTION:-no action}: expected run, stop or delete; bash $0 --help shows the usage" ;;
  esac
}

# A loop that reads the current state and acts on it; it recovers from failures of slice, run and connection.
run() {
  need accelerator-type
  need_train_flags
  [[ -z "$SPOT" || -z "$RESERVED" ]] || fail "--spot: cannot be combined with --reserved; remove one of them"
  RUNTIME_VERSION="${RUNTIME_VERSION:-$(runtime_of "$ACCELERATOR_TYPE")}"
  trap 'log "the run continues on the slice; the same command follows it again, stop ends it" && exit 130' INT
  while true; do
    acquire
    if ! advance; then
      FAILURES=$((FAILURES + 1))
      ((FAILURES < MAX_FAILURES)) || fail "$NAME: gave up after $MAX_FAILURES failures ($PROBLEM); to end billing run $(again delete)"
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
        [[ "$ANSWER" != FAILED || -z "$created" ]] || fail "$NAME: the queued resource was refused; for the reason run gcloud compute tpus queued-resources describe $NAME"
        log "$NAME is $ANSWER; requesting a new slice"
        delete
        ;;
      *) log "$NAME is $ANSWER; next query in $POLL s" && sleep "$POLL" ;;
    esac
  done
}

look() {
  local describe=(gcloud compute tpus queued-resources describe "$NAME" "${PLACE[@]}" '--format=value(state.state)')
  until ask "$SLICE" 'query the queued resource' "${describe[@]}"; do
    if [[ "$ERRORS" == *NOT_FOUND* ]]; then ANSWER=NONE && break; fi
    [[ "$REACHED" ]] || fail "$NAME: could not query the queued resource: $ERRORS"
    log "$NAME: could not query the queued resource: $ERRORS; next query in $POLL s"
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

# on WORKERS WHAT COMMAND: runs a shell command line on one worker or on all.
on() { try "$2" "${SSH[@]}" --worker="$1" --command="$3" || { PROBLEM="could not $2" && return 1; }; }

# Starts or follows the run on an active slice; exits when the run has ended.
advance() {
  local status="$WORKER status 2> /dev/null || echo none"
  if ! ask "$WORK" 'query the state of worker 0' "${SSH[@]}" --worker=0 --command="$status"; then
    PROBLEM="worker 0 is unreachable: $ERRORS" && return 1
  fi
  case "$BEGUN $ANSWER" in
    'yes finished') log "all steps are done; to end billing run $(again delete)" && exit ;;
    'yes stopped') log "the run was stopped; the same command continues it; to end billing run $(again delete)" && exit ;;
    'yes refused') refused && return ;;
    'yes failed'*) PROBLEM="bertjax.train $ANSWER, see its log" && BEGUN='' && return 1 ;;
    *' running') log "$NAME is training" && FAILURES=0 ;;
    *) start || return 1 ;;
  esac
  BEGUN=yes
  on 0 "follow worker 0's log" "$WORKER follow"
}

# Invalid input would be refused again. But preemption of a slice may first show as an error of train.
refused() {
  sleep "$POLL"
  look
  [[ "$ANSWER" != ACTIVE ]] || fail "bertjax.train ended with the error above; to end billing run $(again delete)"
}

# Stopping one process stops all. Worker 0 records that the stop was intended, therefore it comes first.
stop() {
  on 0 'save and stop the run' "$WORKER stop" && on all 'end remaining processes on all workers' "$WORKER stop"
}

# Installs the committed code on all workers and starts the run.
start() {
  local code="$ROOT/dist/bertjax.tar.gz" unpack
  # The other files in the folder may belong to the run.
  unpack='mkdir -p bertjax && cd bertjax && rm -rf bertjax configs launch && tar -xzf ../bertjax.tar.gz'
  [[ -z "$(git -C "$ROOT" status --porcelain)" ]] || log "note: uncommitted changes are not copied"
  must 'create a folder for the code' mkdir -p "$ROOT/dist"
  must 'pack the commit' git -C "$ROOT" archive --format=tar.gz --output="$code" HEAD
  try 'copy the code to all workers' gcloud compute tpus tpu-vm scp "$code" "$NAME:bertjax.tar.gz" --worker=all \
    "${PLACE[@]}" || { PROBLEM='could not copy the code to all workers' && return 1; }
  on all 'install it on all workers' "$unpack && bash launch/worker.sh install tpu" || return 1
  if [[ "$SETUP" ]]; then on all 'set up all workers' "$SETUP" || return 1; fi
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
    *) fail "--accelerator-type=$1: unknown runtime version; set --runtime-version" ;;
  esac
}

main "$@"
