# Sourced by the launchers: parses their flags and runs their commands. With --dry-run it prints exactly the commands
# that would run. Works with the bash 3.2 of macOS.
# shellcheck shell=bash disable=SC2034  # the launchers read these variables
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DRY_RUN=''
ACTION=''
TRAIN_FLAGS=()
ANSWER=''
INPUT=''

fail() {
  echo "error: $*" >&2
  exit 2
}

# read_flags "NAMES" "SWITCHES" [ARGUMENT …]: --some-name=VALUE sets SOME_NAME, --some-switch sets SOME_SWITCH to yes, a
# plain word sets ACTION, and the flags of bertjax.train follow --. --help prints the comment at the top of the script.
read_flags() {
  local names=" $1 " switches=" $2 dry-run " name
  shift 2
  while (($#)); do
    name="${1%%=*}"
    name="${name#--}"
    case "$1" in
      --) shift && TRAIN_FLAGS=("$@") && return ;;
      --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
      --*=*)
        [[ "$names" == *" $name "* ]] || fail "--$name: unknown flag; bash $0 --help lists the flags (those of bertjax.train follow --)"
        printf -v "$(variable "$name")" '%s' "${1#*=}"
        ;;
      --*)
        [[ "$names" != *" $name "* ]] || fail "--$name: value missing; write --$name=VALUE"
        [[ "$switches" == *" $name "* ]] || fail "$1: unknown flag; bash $0 --help lists the flags (those of bertjax.train follow --)"
        printf -v "$(variable "$name")" yes
        ;;
      *)
        [[ -z "$ACTION" ]] || fail "$1: unexpected argument; bash $0 --help shows the usage"
        ACTION="$1"
        ;;
    esac
    shift
  done
}

variable() { tr 'a-z-' 'A-Z_' <<< "$1"; }

# need NAME …: fails if one of these flags has no value.
need() {
  local name variable
  for name; do
    variable="$(variable "$name")"
    [[ -n "${!variable:-}" ]] || fail "--$name: flag missing; bash $0 --help describes it"
  done
}

need_whole() {
  local name variable
  for name; do
    variable="$(variable "$name")"
    [[ "${!variable}" =~ ^[1-9][0-9]*$ ]] || fail "--$name=${!variable}: expected a positive integer"
  done
}

need_train_flags() {
  ((${#TRAIN_FLAGS[@]})) || fail "the flags of bertjax.train are missing; add them after --, e.g. -- --config=configs/large.py --workdir=DIR"
}

# need_tool NAME URL: fails if the program is not installed; a dry run needs none.
need_tool() {
  [[ "$DRY_RUN" ]] || command -v "$1" > /dev/null || fail "$1 is not installed or not on PATH; see $2"
}

# quoted WORD …: prints the words as one line, quoted for a shell.
quoted() {
  local word rest line=''
  for word; do
    if [[ -z "$word" || "$word" == *[!A-Za-z0-9_./:=,@%+-]* ]]; then
      rest="$word" word="'"
      while [[ "$rest" == *\'* ]]; do
        word+="${rest%%\'*}'\\''"
        rest="${rest#*\'}"
      done
      word+="$rest'"
    fi
    line+="${line:+ }$word"
  done
  printf '%s' "$line"
}

log() { [[ "$DRY_RUN" ]] || printf '%s\n' "$*" >&2; }

# announce WHAT COMMAND …: prints a command, in a dry run to stdout, else to stderr.
announce() {
  local what="$1"
  shift
  if [[ "$DRY_RUN" && "$INPUT" ]]; then
    printf "# %s\n%s << 'END'\n%s\nEND\n" "$what" "$(quoted "$@")" "$INPUT"
  elif [[ "$DRY_RUN" ]]; then
    printf '# %s\n%s\n' "$what" "$(quoted "$@")"
  else
    printf '+ %s\n' "$(quoted "$@")" >&2
  fi
}

# try WHAT COMMAND …: runs the command without input and returns its exit code.
try() {
  announce "$@"
  shift
  [[ "$DRY_RUN" ]] || "$@" < /dev/null
}

# must WHAT COMMAND …: as try, with INPUT as input; ends the script with a one-line error if the command fails.
must() {
  local errors
  announce "$@"
  if [[ -z "$DRY_RUN" ]]; then
    errors="$("${@:2}" 2>&1 > /dev/null <<< "$INPUT")" || fail "could not $1: $(reason "$errors")"
  fi
}

# ask ASSUMED WHAT COMMAND …: sets ANSWER to the output of the command, in a dry run to ASSUMED; ERRORS to its error.
ask() {
  local assumed="$1" file code=0
  shift
  announce "$@"
  shift
  if [[ "$DRY_RUN" ]]; then
    ANSWER="$assumed"
    printf '# … assumed output: %s\n' "$assumed"
    return
  fi
  file="$(mktemp)"
  ANSWER="$("$@" 2> "$file" < /dev/null)" || code=$?
  ERRORS="$(reason "$(cat "$file")")"
  rm -f "$file"
  return "$code"
}

# reason ERRORS: prints the most specific line of a command's error output.
reason() {
  local line
  line="$(grep -m 1 '^ERROR\|^error' <<< "$1" || grep -v '^[[:space:]]*$' <<< "$1" | tail -n 1)"
  printf '%s' "${line:-no error message}"
}
