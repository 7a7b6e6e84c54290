#!/usr/bin/env bash
# Trains on the GPUs of a SLURM cluster: installs bertjax into this folder, which all nodes must share, and submits a
# job with one process per GPU. Before its time limit, and on preemption, the job saves, is requeued and continues.
#
#   bash launch/slurm.sh FLAGS -- --config=configs/large.py --workdir=DIR [flags of bertjax.train]
#
# FLAGS:
#   --nodes=N           number of nodes; default: 1
#   --gpus=N            GPUs per node; default: 8
#   --time=LIMIT        time limit between two requeues, in the format of sbatch, e.g. 24:00:00
#   --cpus=N            CPUs per GPU, for the input pipeline; default: 8
#   --partition=NAME, --account=NAME, --qos=NAME, --constraint=LIST   as for sbatch
#   --name=NAME         name of the job; default: bertjax
#   --log=FILE          log file, appended to after a requeue; default: NAME.log
#   --grace=SECONDS     time for saving before the limit; default: 300
#   --dry-run           prints the commands without running them
set -euo pipefail
. "$(dirname "$0")/commands.sh"
NODES=1 GPUS=8 TIME='' CPUS=8 PARTITION='' ACCOUNT='' QOS='' CONSTRAINT='' NAME=bertjax LOG='' GRACE=300

main() {
  read_flags 'nodes gpus time cpus partition account qos constraint name log grace' '' "$@"
  [[ -z "$ACTION" ]] || fail "$ACTION: unexpected argument; bash $0 --help shows the usage"
  need name time
  need_whole nodes gpus cpus grace
  need_train_flags
  need_tool sbatch https://slurm.schedmd.com
  try 'install bertjax with the extra gpu' bash -c "cd $(quoted "$ROOT") && . launch/environment.sh && ensure_environment gpu" ||
    fail "could not install bertjax; see the messages above"
  # One task per GPU, with all GPUs of the node visible to each: JAX assigns GPU n to the task with local rank n.
  must 'submit the job' sbatch --job-name="$NAME" --nodes="$NODES" --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" \
    --cpus-per-task="$CPUS" --time="$TIME" ${PARTITION:+--partition="$PARTITION"} ${ACCOUNT:+--account="$ACCOUNT"} \
    ${QOS:+--qos="$QOS"} ${CONSTRAINT:+--constraint="$CONSTRAINT"} --chdir="$ROOT" --output="${LOG:-$NAME.log}" \
    --open-mode=append --requeue --signal="B:USR1@$GRACE" "$ROOT/launch/slurm_job.sh" "${TRAIN_FLAGS[@]}"
  log "submitted; status: squeue --name=$NAME, log: tail -F $(quoted "${LOG:-$ROOT/$NAME.log}"), stop: scancel --name=$NAME"
}

main "$@"
