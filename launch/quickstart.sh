#!/usr/bin/env bash
# From nothing to a small BERT in minutes, on CPU: sets up .venv, prepares the embedded corpus, pre-trains on it, and
# fills in a few masks with the result. Flags go to bertjax.train, e.g. --config.log_every=50;
# what changes the mathematics (another seed, another model) needs runs/quickstart to be removed first.
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
echo "Curves: $RUN/curves.png   More: bash launch/test.sh, README.md"
