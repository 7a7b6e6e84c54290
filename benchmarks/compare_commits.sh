#!/usr/bin/env bash
# Verifies that two commits compute the same results: runs small cases at both and compares their outputs, bit by bit
# where possible (see compare_results.py).
#
#   bash benchmarks/compare_commits.sh OLD NEW [--data=DIR] [--workdir=DIR] [--only=CASE,…]
#
#   OLD, NEW   commits, branches or tags, without uncommitted changes; the same commit twice tests whether the machine is
#              deterministic
#   --data     folder with wiki/wiki_00 (WikiExtractor's output), glue/CoLA and ud_ewt (UD English EWT); without it the
#              cases that need it are skipped
#   --workdir  folder that keeps the results; later calls reuse those of a commit
#   --only     cases to run, with the cases they depend on
#   PYTHON     (environment) Python to use instead of the repository's .venv/bin/python
#   XLA_FLAGS  (environment) used for both commits; those of tests/conftest.py halve the time to compile
#
# Exit code: 0 all cases are equal, 1 a case differs or failed, 2 usage error, 3 no case differs but some were skipped.
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 2
}

# Extracts the tree of a commit into a folder, unless it exists; the folder appears only when it is complete.
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
[[ ${#commits[@]} -eq 2 ]] || fail "expected two commits: bash benchmarks/compare_commits.sh OLD NEW [--data=DIR] …"

# The top of the repository, for `git archive`, and the main work tree, which contains .venv.
HERE="$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)"
PYTHON="${PYTHON:-$(dirname "$(git -C "$HERE" rev-parse --path-format=absolute --git-common-dir)")/.venv/bin/python}"
[[ -x "$PYTHON" ]] || fail "$PYTHON: missing; run bash launch/test.sh first, or set PYTHON"

hashes=()
for name in "${commits[@]}"; do
  hashes+=("$(git -C "$HERE" rev-parse --verify --quiet "$name^{commit}")") || fail "$name: no such commit"
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
"${run[@]}"  # without exec: the trap then removes the folder
