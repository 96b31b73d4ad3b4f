#!/usr/bin/env bash
# Starts morpheus boot on a machine that has Python and git and nothing else: makes our environment on
# local disk where it isn't there yet, then becomes `python -m morpheus_boot "$@"`.
set -Eeuo pipefail

# python3 comes first: it is the image's own, so that mostly one try is enough.
PYTHON_NAMES=(python3 python3.14 python3.13 python3.12 python3.11 python3.15 python)
# Looked at after PATH, which a container's start command may have lost.
PYTHON_FOLDERS=(/usr/local/bin /usr/bin /opt/venv/bin /opt/conda/bin /opt/python/bin)
# What environment.py needs. The real path, since a venv made from a link breaks when the link moves on.
PYTHON_PROBE='
import fcntl, os, ssl, sys, venv, zlib
assert sys.version_info >= (3, 11)
print(os.path.realpath(sys.executable))
'

say() {
  printf 'pod_start.sh: %s\n' "$*" >&2
}

# fail THING CAUSE MEND EXIT_CODE
fail() {
  say "$1: $2; $3 (exit $4)"
  exit "$4"
}

own_folder() {
  local script
  script="$(readlink -f -- "${BASH_SOURCE[0]}")"
  script="${script%/*}"
  printf '%s\n' "${script:-/}"
}

# MORPHEUS_LOCAL_DIR as settings.py reads it (a test compares the two): asking it would start a Python.
local_folder() {
  local folder="${MORPHEUS_LOCAL_DIR-}" home=~
  folder="${folder#"${folder%%[![:space:]]*}"}"
  folder="${folder%"${folder##*[![:space:]]}"}"
  if [[ -z $folder ]]; then
    if ((EUID == 0)); then
      folder=/opt/morpheus
    else
      folder="${XDG_CACHE_HOME:-$home/.cache}/morpheus"
    fi
  fi
  case "$folder" in
    /*) ;;
    \~ | \~/*) folder="$home${folder#\~}" ;;
    *) folder="$PWD/$folder" ;;
  esac
  printf '%s\n' "$folder"
}

# find_environment FOLDER LOCK: prints the environment below FOLDER that was made from LOCK, if it is whole.
find_environment() {
  local folder=$1 lock=$2 environment
  for environment in "$folder"/venv-*; do
    # lock.txt is a copy of the lock and the last file that environment.py puts there.
    [[ -x $environment/bin/python && -r $environment/lock.txt ]] || continue
    if [[ "$(<"$environment/lock.txt")" == "$(<"$lock")" ]]; then
      printf '%s\n' "$environment"
      return 0
    fi
  done
  return 1
}

python_candidates() {
  local name folder
  for name in "${PYTHON_NAMES[@]}"; do
    type -aP "$name" || true # none of that name
    for folder in "${PYTHON_FOLDERS[@]}"; do
      [[ ! -x $folder/$name ]] || printf '%s\n' "$folder/$name"
    done
  done
}

# find_python FOLDER: prints a Python that can run environment.py; one that uv brings lies below FOLDER.
find_python() {
  local folder=$1 candidate
  while IFS= read -r candidate; do
    # What a candidate that doesn't fit says about itself (too old, a shim of nothing) helps nobody.
    "$candidate" -I -c "$PYTHON_PROBE" 2>/dev/null </dev/null && return 0
  done <<<"$(python_candidates)"
  uv_python "$folder"
}

uv_python() {
  local python
  type -P uv >/dev/null || return 1
  # Ours lies where the rest of ours lies, and puts no command into anyone's PATH.
  export UV_PYTHON_INSTALL_DIR="$1/python" UV_PYTHON_INSTALL_BIN=0
  if ! python="$(uv python find '>=3.11' 2>/dev/null)"; then # none yet: it says so, and we go on
    say "no fitting Python here: uv brings one"
    uv python install --quiet 3.12 >&2 || return 1
    python="$(uv python find 3.12)" || return 1
  fi
  "$python" -I -c "$PYTHON_PROBE" </dev/null
}

# The command among the arguments, as argv.py finds it.
command_in() {
  while (($# > 0)); do
    case "$1" in
      --models | --volume | --comfyui | --log-format | --lock-timeout | --retry-for | --jobs-older-than | --forget)
        shift # its value is no command
        ;;
      -*) ;;
      *)
        printf '%s\n' "$1"
        return 0
        ;;
    esac
    (($# == 0)) || shift
  done
  printf 'up\n'
}

# What makes the environment, by the process group that it leads; empty while nothing does.
MAKER=

# stop EXIT_CODE: ends what makes the environment, and this.
stop() {
  if [[ -n $MAKER ]]; then
    kill -TERM -- "-$MAKER" 2>/dev/null || true # all has ended meanwhile
    wait "$MAKER" 2>/dev/null || true
  fi
  exit "$1"
}

# stop_in_order COMMAND: from now on a signal ends all with the exit code that it has while COMMAND runs.
stop_in_order() {
  case "$1" in
    up | files) # services: to be stopped is their good end
      trap 'stop 0' TERM INT HUP
      ;;
    *)
      trap 'stop 143' TERM
      trap 'stop 130' INT
      trap 'stop 129' HUP
      ;;
  esac
}

# make_environment REPOSITORY FOLDER LOCK [ARGUMENT...]: returns environment.py's exit code.
make_environment() {
  local repository=$1 folder=$2 lock=$3 python
  shift 3
  # A child that is waited for, with a process group of its own: a trap runs at once, and reaches all of it.
  set -m
  (
    set +m
    python="$(find_python "$folder")" ||
      fail Python "none of version 3.11 or newer with venv and ssl was found (tried ${PYTHON_NAMES[*]} and uv)" \
        "install one, whole (apt-get install python3 python3-venv)" 78
    # These would send our packages elsewhere: into another Python, perhaps ComfyUI's.
    unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PYTHONHOME
    PYTHONPATH="$repository" exec "$python" -P -s -m morpheus_boot.start.environment "$folder" "$lock" "$@"
  ) </dev/null &
  MAKER=$!
  set +m
  wait "$MAKER"
  MAKER=
}

main() {
  local repository folder lock environment
  # As PID 1 a signal without a trap is lost.
  stop_in_order "$(command_in "$@")"
  repository="$(own_folder)"
  folder="$(local_folder)"
  lock="$repository/morpheus_boot/requirements.txt"
  if ! environment="$(find_environment "$folder" "$lock")"; then
    make_environment "$repository" "$folder" "$lock" "$@"
    environment="$(find_environment "$folder" "$lock")"
  fi
  # -P: a yaml.py in the working directory must not become ours.
  PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}" \
    exec "$environment/bin/python" -P -m morpheus_boot "$@"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
