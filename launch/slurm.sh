#!/usr/bin/env bash
# Trains on the GPUs of a SLURM cluster: installs bertjax here once, in a folder that all nodes see, and submits a job with
# one process a GPU. Before its time is over, and when it is preempted, the job saves, queues again and continues.
#
#   bash launch/slurm.sh FLAGS -- --config=configs/large.py --workdir=DIR [flags of bertjax.train]
#
# FLAGS:
#   --nodes=N           1
#   --gpus=N            of each node; 8
#   --time=LIMIT        of one stretch, as sbatch has it, e.g. 24:00:00
#   --cpus=N            of each GPU, for the input pipeline; 8
#   --partition=NAME, --account=NAME, --qos=NAME, --constraint=LIST   as sbatch has them
#   --name=NAME         of the job; bertjax
#   --log=FILE          runs on through all stretches; NAME.log
#   --grace=SECONDS     to save in, before the time is over; 300
#   --dry-run           print the commands and run none
set -euo pipefail
. "$(dirname "$0")/commands.sh"
NODES=1 GPUS=8 TIME='' CPUS=8 PARTITION='' ACCOUNT='' QOS='' CONSTRAINT='' NAME=bertjax LOG='' GRACE=300

main() {
  read_flags 'nodes gpus time cpus partition account qos constraint name log grace' '' "$@"
  [[ -z "$ACTION" ]] || fail "unexpected argument $ACTION; bash $0 --help shows the usage"
  need name time
  need_whole nodes gpus cpus grace
  need_train_flags
  need_tool sbatch https://slurm.schedmd.com
  try 'install bertjax with the extra gpu' bash -c "cd $(quoted "$ROOT") && . launch/environment.sh && ensure_environment gpu" ||
    fail "could not install bertjax; the lines above say why"
  # As many tasks as GPUs and all of a node's GPUs visible to each: JAX gives the task with local number n the GPU n.
  must 'submit the job' sbatch --job-name="$NAME" --nodes="$NODES" --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" \
    --cpus-per-task="$CPUS" --time="$TIME" ${PARTITION:+--partition="$PARTITION"} ${ACCOUNT:+--account="$ACCOUNT"} \
    ${QOS:+--qos="$QOS"} ${CONSTRAINT:+--constraint="$CONSTRAINT"} --chdir="$ROOT" --output="${LOG:-$NAME.log}" \
    --open-mode=append --requeue --signal="B:USR1@$GRACE" "$ROOT/launch/slurm_job.sh" "${TRAIN_FLAGS[@]}"
  say "submitted; squeue --name=$NAME shows it, tail -F $(quoted "${LOG:-$ROOT/$NAME.log}") follows it, scancel --name=$NAME ends it"
}

main "$@"
