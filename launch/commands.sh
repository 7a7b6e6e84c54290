# Sourced by the launchers: their flags, and the one way in which they run commands, so that --dry-run prints exactly
# what would be run. Works with the bash 3.2 of macOS.
# shellcheck shell=bash disable=SC2034  # what is set here is read by those who source it
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

# read_flags "NAMES" "SWITCHES" [ARGUMENT …]: --some-name=VALUE sets SOME_NAME, --some-switch sets it to yes, a word is
# the ACTION, and what follows -- are the flags of bertjax.train. --help shows the comment at the script's head.
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
        [[ "$names" == *" $name "* ]] || fail "unknown flag --$name; bash $0 --help lists them (train's own come after --)"
        printf -v "$(variable "$name")" '%s' "${1#*=}"
        ;;
      --*)
        [[ "$names" != *" $name "* ]] || fail "--$name needs a value: --$name=VALUE"
        [[ "$switches" == *" $name "* ]] || fail "unknown flag $1; bash $0 --help lists them (train's own come after --)"
        printf -v "$(variable "$name")" yes
        ;;
      *)
        [[ -z "$ACTION" ]] || fail "unexpected argument $1; bash $0 --help shows the usage"
        ACTION="$1"
        ;;
    esac
    shift
  done
}

variable() { tr 'a-z-' 'A-Z_' <<< "$1"; }

# need NAME …: each flag has a value.
need() {
  local name variable
  for name; do
    variable="$(variable "$name")"
    [[ -n "${!variable:-}" ]] || fail "--$name is missing; bash $0 --help says what it is"
  done
}

need_whole() {
  local name variable
  for name; do
    variable="$(variable "$name")"
    [[ "${!variable}" =~ ^[1-9][0-9]*$ ]] || fail "--$name=${!variable} is not a whole number above zero"
  done
}

need_train_flags() {
  ((${#TRAIN_FLAGS[@]})) || fail "the flags of bertjax.train are missing; give them after --, e.g. -- --config=configs/large.py --workdir=DIR"
}

# need_tool NAME WHERE: the program is there; a dry run needs none.
need_tool() {
  [[ "$DRY_RUN" ]] || command -v "$1" > /dev/null || fail "$1 is not installed, or not on PATH; see $2"
}

# quoted WORD …: the words as one line that a shell reads back as they are.
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

say() { [[ "$DRY_RUN" ]] || printf '%s\n' "$*" >&2; }

# announce WHAT COMMAND …: a dry run's lines are its output, a real run's go beside the output of the commands.
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

# try WHAT COMMAND …: runs the command; returns its exit code. Nothing that is run may read the terminal.
try() {
  announce "$@"
  shift
  [[ "$DRY_RUN" ]] || "$@" < /dev/null
}

# must WHAT COMMAND …: as try, but nothing goes on without it; its errors are shown as one line. It reads INPUT.
must() {
  local errors
  announce "$@"
  if [[ -z "$DRY_RUN" ]]; then
    errors="$("${@:2}" 2>&1 > /dev/null <<< "$INPUT")" || fail "could not $1: $(reason "$errors")"
  fi
}

# ask ASSUMED WHAT COMMAND …: puts the command's output into ANSWER, in a dry run ASSUMED; its errors into ERRORS.
ask() {
  local assumed="$1" file code=0
  shift
  announce "$@"
  shift
  if [[ "$DRY_RUN" ]]; then
    ANSWER="$assumed"
    printf '# … taken to answer: %s\n' "$assumed"
    return
  fi
  file="$(mktemp)"
  ANSWER="$("$@" 2> "$file" < /dev/null)" || code=$?
  ERRORS="$(reason "$(cat "$file")")"
  rm -f "$file"
  return "$code"
}

# reason ERRORS: the line of a command's errors that says most.
reason() {
  local line
  line="$(grep -m 1 '^ERROR\|^error' <<< "$1" || grep -v '^[[:space:]]*$' <<< "$1" | tail -n 1)"
  printf '%s' "${line:-it gave no reason}"
}
