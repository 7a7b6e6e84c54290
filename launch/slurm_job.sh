#!/usr/bin/env bash
# The job that launch/slurm.sh submits: runs bertjax.train, once per task. Before the time limit SLURM sends USR1 to this
# script alone; then train saves and the job is requeued. SLURM itself warns and requeues a preempted job.
set -uo pipefail
TIME_IS_OVER=''

# scancel signals the tasks; a signal to srun would kill them at once.
# shellcheck disable=SC2329  # the trap calls it
save() {
  TIME_IS_OVER=yes
  scancel --signal=TERM "$SLURM_JOB_ID"
}
trap save USR1

# Since SLURM 22.05 srun does not inherit --cpus-per-task from sbatch.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 .venv/bin/python -m bertjax.train "$@" &
TASKS=$!
wait "$TASKS"
code=$?
if [[ "$TIME_IS_OVER" ]] && ((code > 128)); then # the signal ended `wait`, not the tasks
  wait "$TASKS"
  code=$?
fi
if [[ "$TIME_IS_OVER" ]] && ((code == 0)); then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
