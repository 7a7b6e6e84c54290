#!/usr/bin/env bash
# Trains a small BERT on CPU within minutes: sets up .venv, prepares a corpus from the documentation bundled with
# Python, pre-trains on it, and predicts a few masked words. Flags are passed to bertjax.train, for example
# --config.log_every=50; after a change that affects the results (seed, model) remove runs/quickstart first.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
ensure_environment
RUN=runs/quickstart
if [[ ! -f $RUN/corpus/corpus.json ]]; then
  "$PYTHON" -m bertjax.prepare --source=pydoc: --tokenizer=new:wordpiece:2048 --heldout=0.05 --output=$RUN/corpus
fi
"$PYTHON" -m bertjax.train --config=configs/quickstart.py --workdir=$RUN --config.corpus=$RUN/corpus "$@"
"$PYTHON" -m bertjax.predict fill-mask --checkpoint=$RUN --top=3 \
  "Return a list of the [MASK] in the string." \
  "If the file does not exist, an [MASK] is raised." \
  "The default [MASK] is None."
echo "curves: $RUN/curves.png; next: README.md"
