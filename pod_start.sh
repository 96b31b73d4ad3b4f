#!/usr/bin/env bash
# Starts morpheus boot on a machine that has Python and git and nothing else: becomes `python -m morpheus_boot "$@"` in
# our environment where that is there, else morpheus_boot.start in the host's Python, which makes it and goes on alike.
set -Eeuo pipefail

# python3 comes first: it is the image's own, so that mostly one try is enough.
PYTHON_NAMES=(python3 python3.14 python3.13 python3.12 python3.11 python3.15 python)
# Looked at after PATH, which a container's start command may have lost.
PYTHON_FOLDERS=(/usr/local/bin /usr/bin /opt/venv/bin /opt/conda/bin /opt/python/bin)
# What morpheus_boot.start needs. The real path, since a venv made from a link breaks when the link moves on.
PYTHON_PROBE='
import fcntl, os, ssl, sys, venv, zlib
assert sys.version_info >= (3, 11)
print(os.path.realpath(sys.executable))
'

# environment_python FOLDER LOCK: prints the Python of the environment below FOLDER that was made from LOCK.
environment_python() {
  local environment
  for environment in "$1"/venv-*; do
    # lock.txt is a copy of the lock, and the last file that comes into an environment.
    [[ -x $environment/bin/python && -r $environment/lock.txt ]] || continue
    if [[ "$(<"$environment/lock.txt")" == "$(<"$2")" ]]; then
      printf '%s\n' "$environment/bin/python"
      return 0
    fi
  done
  return 1
}

# host_python FOLDER: prints a Python that can make one; below FOLDER lies one that uv has brought.
host_python() {
  local name candidate
  for name in "${PYTHON_NAMES[@]}"; do
    while IFS= read -r candidate; do
      # What a candidate that doesn't fit says about itself (too old, a shim of nothing) helps nobody.
      "$candidate" -I -c "$PYTHON_PROBE" 2>/dev/null </dev/null && return 0
    done <<<"$(type -aP "$name")"$'\n'"$(printf '%s\n' "${PYTHON_FOLDERS[@]/%//$name}")"
  done
  type -P uv >/dev/null || return 1
  # Ours lies where the rest of ours lies, and puts no command into anyone's PATH.
  export UV_PYTHON_INSTALL_DIR="$1/python" UV_PYTHON_INSTALL_BIN=0
  if ! candidate="$(uv python find '>=3.11' 2>/dev/null)"; then
    printf 'pod_start.sh: no fitting Python here: uv brings one\n' >&2
    uv python install --quiet 3.12 >&2 && candidate="$(uv python find 3.12)" || return 1
  fi
  "$candidate" -I -c "$PYTHON_PROBE"
}

# What looks for a Python, by the process group that it leads; empty while nothing does.
SEARCH=

# stop EXIT_CODE: ends what looks for a Python, and this.
stop() {
  [[ -z $SEARCH ]] || kill -TERM -- "-$SEARCH" 2>/dev/null || true
  exit "$1"
}

main() {
  local repository folder=${MORPHEUS_LOCAL_DIR-} python module=morpheus_boot found home=~
  # As PID 1 a signal without a trap is lost. For services to be stopped is their good end.
  case "${1-up}" in
    up | files | -*) trap 'stop 0' TERM INT HUP ;;
    *) trap 'stop 143' TERM && trap 'stop 130' INT && trap 'stop 129' HUP ;;
  esac
  repository="$(readlink -f -- "${BASH_SOURCE[0]}")"
  repository="${repository%/*}"
  # settings.py also takes a relative folder, and ~; morpheus_boot.start finds what is there.
  if [[ -z $folder ]]; then
    if ((EUID == 0)); then folder=/opt/morpheus; else folder="${XDG_CACHE_HOME:-$home/.cache}/morpheus"; fi
  fi
  if ! python="$(environment_python "$folder" "$repository/morpheus_boot/requirements.txt")"; then
    module=morpheus_boot.start
    exec {found}<> <(:) # a pipe
    # Beside us, with a process group of its own: a trap runs at once, and reaches all of it.
    set -m
    host_python "$folder" </dev/null >&"$found" &
    SEARCH=$!
    set +m
    wait "$SEARCH" || {
      printf 'pod_start.sh: Python: none of version 3.11 or newer with venv and ssl was found (tried %s and uv); %s\n' \
        "${PYTHON_NAMES[*]}" 'install one, whole (apt-get install python3 python3-venv) (exit 78)' >&2
      exit 78
    }
    SEARCH=
    read -r python <&"$found"
    exec {found}<&-
  fi
  unset PYTHONHOME # it would lead any Python away from its own packages
  # -P: a yaml.py in the working directory must not become ours. -s: nor what a user has installed for the host's.
  PYTHONPATH="${repository:-/}${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -s -m "$module" "$@"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
