#!/usr/bin/env bash
# Shows that a change of the code changes nothing that it computes: runs the same small cases at two commits and
# compares what they leave, to the bit where they must be equal to the bit (compare_commits.py says how).
#
#   bash benchmarks/compare_commits.sh OLD NEW [--data=DIR] [--workdir=DIR] [--only=CASE,…]
#
#   OLD, NEW   commits, branches or tags; what is not committed does not count. The same twice shows whether the
#              machine repeats itself
#   --data     folder with wiki/wiki_00 (WikiExtractor's output), glue/CoLA and ud_ewt (UD English EWT); cases that
#              need it are skipped without it
#   --workdir  keeps everything there: what is done for a commit is not done again
#   --only     only these cases, and what they start from
#   PYTHON     (environment) the Python to use in place of the repository's .venv/bin/python
#   XLA_FLAGS  (environment) counts for both; those of tests/conftest.py take half the time to compile
#
# Exit code: 0 all cases are equal, 1 some differ or failed, 2 wrong usage, 3 all that ran are equal but some were skipped.
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 2
}

# The tree of a commit, once, in a folder of its name. It appears whole or not at all.
extract() {
  local commit="$1" folder="$2"
  [[ ! -d "$folder/tree" ]] || return 0
  rm -rf "$folder/tree.tmp"
  mkdir -p "$folder/tree.tmp"
  git -C "$HERE" archive "$commit" | tar -x -C "$folder/tree.tmp"
  mv "$folder/tree.tmp" "$folder/tree"
}

commits=() options=() workdir=""
for word in "$@"; do
  case "$word" in
    --workdir=*) workdir="${word#*=}" ;;
    -*) options+=("$word") ;;
    *) commits+=("$word") ;;
  esac
done
[[ ${#commits[@]} -eq 2 ]] || fail "give two commits: bash benchmarks/compare_commits.sh OLD NEW [--data=DIR] …"

# The top of the repository, from where `archive` takes everything, and the main work tree, which has the environment.
HERE="$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)"
PYTHON="${PYTHON:-$(dirname "$(git -C "$HERE" rev-parse --path-format=absolute --git-common-dir)")/.venv/bin/python}"
[[ -x "$PYTHON" ]] || fail "there is no $PYTHON; run bash launch/test.sh first, or set PYTHON"

hashes=()
for name in "${commits[@]}"; do
  hashes+=("$(git -C "$HERE" rev-parse --verify --quiet "$name^{commit}")") || fail "$name is no commit"
done
old="${hashes[0]}" new="${hashes[1]}"
[[ "$old" != "$new" ]] || new+="-again"

temporary=""
if [[ -z "$workdir" ]]; then
  workdir="$(mktemp -d)" temporary=yes
  trap 'rm -rf "$workdir"' EXIT
fi
mkdir -p "$workdir"
workdir="$(cd "$workdir" && pwd)"
extract "${hashes[0]}" "$workdir/$old"
extract "${hashes[1]}" "$workdir/$new"

run=("$PYTHON" "$HERE/benchmarks/compare_commits.py" "$workdir" "$old" "$new" ${options[@]+"${options[@]}"})
[[ -n "$temporary" ]] || exec "${run[@]}"
"${run[@]}"  # returns here, so that the folder is removed
