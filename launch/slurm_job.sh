#!/usr/bin/env bash
# What launch/slurm.sh submits: runs bertjax.train, once a task. SLURM sends USR1 here, and only here, before the time is
# over; then train saves, and the job queues again. A job that is preempted is queued again by SLURM, which also warns it.
set -uo pipefail
TIME_IS_OVER=''

# Not a signal to srun, which would kill its tasks at once.
# shellcheck disable=SC2329  # the trap calls it
save() {
  TIME_IS_OVER=yes
  scancel --signal=TERM "$SLURM_JOB_ID"
}
trap save USR1

# srun does not take --cpus-per-task over from sbatch (since SLURM 22.05).
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 .venv/bin/python -m bertjax.train "$@" &
TASKS=$!
wait "$TASKS"
code=$?
if [[ "$TIME_IS_OVER" ]] && ((code > 128)); then # the signal ended the wait, not the tasks
  wait "$TASKS"
  code=$?
fi
if [[ "$TIME_IS_OVER" ]] && ((code == 0)); then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
