#!/usr/bin/env bash
# Installs the test dependencies and runs the suite; extra arguments are passed to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
ensure_environment test
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
# Two workers with one file each, because many tests wait for the processes that they start. In alphabetical order the
# longest files (laws/) run early, which balances the workers. --numprocesses=0 in "$@" overrides this.
exec "$PYTHON" -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "$@"
