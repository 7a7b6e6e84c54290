#!/usr/bin/env bash
# Sets up .venv with the test extra and runs all tests; arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
ensure_environment test
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
# Two at a time, a file each: many tests wait for processes that they start. In the order of their names the longest
# files (laws/) come early, so that none is left alone at the end. A later --numprocesses=0 in "$@" wins.
exec "$PYTHON" -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "$@"
