#!/usr/bin/env bash
# Sets up .venv with the test extra and runs all tests; arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
ensure_environment test
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
# Two at a time, a file each: many tests wait for processes that they start. A later --numprocesses=0 in "$@" wins.
exec "$PYTHON" -m pytest --numprocesses=2 --dist=loadfile "$@"
