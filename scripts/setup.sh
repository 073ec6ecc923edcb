#!/bin/sh
# setup.sh runtime|dev: makes .venv in the checkout with the pinned packages of requirements.txt or requirements-dev.txt.
# Finds a Python that is new enough and leaves the rest to make_venv.py. One clear line when there is none.

root=$(CDPATH='' cd -P -- "$(dirname -- "$0")/.." && pwd -P) || exit 1

die() {
  printf 'universal-registry: %s\n' "$1" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# 0 = fit, 3 = too old, 4 = cannot make an environment, anything else = no Python at all. uv brings its own installer.
probe='import sys
if sys.version_info < (3, 11): sys.exit(3)
import importlib.util as u
sys.exit(0 if u.find_spec("venv") and (len(sys.argv) > 1 or u.find_spec("ensurepip")) else 4)'

uv=
have uv && uv=uv
too_old=
no_venv=
for python in python3 python3.13 python3.12 python3.11 python3.14 python; do
  have "$python" || continue
  "$python" -I -c "$probe" ${uv:+"$uv"} >/dev/null 2>&1
  case $? in
    0) exec "$python" -I "$root/scripts/make_venv.py" "$@" ;;
    3) [ -n "$too_old" ] || too_old=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ;;
    4) no_venv=$python ;;
  esac
done

if [ -n "$uv" ]; then
  printf 'universal-registry: no Python 3.11 or newer here; asking uv for one\n' >&2
  if uv python install --quiet 3.13 2>/dev/null && python=$(uv python find 3.13 2>/dev/null); then
    exec "$python" -I "$root/scripts/make_venv.py" "$@"
  fi
fi
if [ -n "$no_venv" ]; then
  die "$no_venv cannot make a virtual environment; install its venv module (Debian: apt install python3-venv) or uv"
elif [ -n "$too_old" ]; then
  die "Python 3.11 or newer is needed, and python3 here is $too_old; install a newer one or uv, or set REGISTRY_PYTHON"
fi
die "Python 3.11 or newer is needed, and there is none on PATH; install one or uv, or set REGISTRY_PYTHON"
