#!/usr/bin/env bash
# Puts the registry of this checkout into /opt/universal-registry and makes it a service: systemd on Linux, launchd on
# macOS. Again: an upgrade, which keeps data, keys, settings and edits of config.py. Bash 3.2 and BSD tools are enough.
set -u

usage() {
  cat <<'TEXT'
usage: install_registry.sh [--user] [--prefix DIR] [--now] [--venv DIR] [--root DIR] [--uninstall [--purge]]

  --user        for you alone, without root: below ~/.local, a service of yours
  --prefix DIR  put it there instead of /opt/universal-registry (--user: ~/.local/share/universal-registry)
  --now         start the service at once
  --venv DIR    use this Python environment, which has the packages of requirements.txt, instead of making one
  --root DIR    a trial: everything below DIR, no account made, no service manager told
  --uninstall   remove it; records, keys, logs and settings stay
  --purge       with --uninstall: remove those too
TEXT
}

say() { printf 'install_registry.sh: %s\n' "$1"; }

die() {
  printf 'install_registry.sh: %s\n' "$1" >&2
  exit "${2:-1}"
}

# --- what is wanted ---------------------------------------------------------------------------------------------------

scope=system prefix='' base='' venv='' now='' uninstall='' purge=''
words=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    --prefix | --root | --venv)
      if [ $# -lt 2 ] || [ -z "$2" ]; then die "$1 needs a folder" 2; fi
      case $2 in /*) folder=$2 ;; *) folder=$PWD/$2 ;; esac
      case $1 in --prefix) prefix=$folder ;; --root) base=${folder%/} ;; --venv) venv=$folder ;; esac
      shift
      ;;
    --user) scope=user ;;
    --system) scope=system ;;
    --now) now=--now ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=--purge ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      die "unknown option $1" 2
      ;;
  esac
  shift
done
if [ -n "$purge" ] && [ -z "$uninstall" ]; then die '--purge goes with --uninstall' 2; fi

self=${BASH_SOURCE[0]}
while [ -h "$self" ]; do
  link=$(readlink "$self") || exit 1
  case $link in /*) self=$link ;; *) self=$(dirname -- "$self")/$link ;; esac
done
source=$(CDPATH='' cd -P -- "$(dirname -- "$self")" && pwd -P) || exit 1

if [ "$scope" = user ]; then
  [ -n "${HOME:-}" ] || die 'HOME is not set, so there is no place for an installation of yours' 2
  data=${XDG_DATA_HOME:-$HOME/.local/share}
  [ -n "$prefix" ] || prefix=$base$data/universal-registry
  bin=$base$HOME/.local/bin share=$base$data
else
  [ -n "$prefix" ] || prefix=$base/opt/universal-registry
  bin=$base/usr/local/bin share=$base/usr/local/share
fi
case $prefix in
  *[\"\'\\%\$]* | *$'\n'*) die "the prefix $prefix has a quote, %, \$, \\ or a line break in it" 2 ;;
esac

# The whole system needs root; a trial and an installation of one's own do not.
if [ "$scope" = system ] && [ -z "$base" ] && [ "$(id -u)" -ne 0 ]; then
  [ -z "${UREG_INSTALL_AS_ROOT:-}" ] || die 'sudo did not make us root'
  command -v sudo >/dev/null 2>&1 || die 'this needs root: run it as root, or with --user for yourself alone' 4
  say 'asking for root with sudo: files go to /opt, /etc, /var and /usr/local'
  exec sudo UREG_INSTALL_AS_ROOT=1 bash "$source/install_registry.sh" ${words[@]+"${words[@]}"}
fi

# --- the program ------------------------------------------------------------------------------------------------------

# What is copied. The data has other names, so that an upgrade never touches it.
PROGRAM='universal_registry scripts cli deploy run_registry.sh ureg install_registry.sh pyproject.toml requirements.txt
README.md CHANGELOG.md LICENSE universal_registry_integration.zsh registry_propagation_nexus.zsh
universal-registry.plugin.zsh'

service() {
  REGISTRY_HOME=$prefix sh "$program/ureg" service "$@" "--$scope" --on "$(uname -s)" ${base:+--root "$base"}
}

# Nothing else has these: what is in another folder is not ours to remove.
holds_data() {
  [ -f "$prefix/config/encryption.key" ] || [ -h "$prefix/.universal_registry.db" ] || [ -f "$prefix/.universal_registry.db" ]
}

# A program that is being replaced must not run meanwhile: it loads parts of itself when it needs them.
stop_daemon() {
  [ -z "$base" ] && [ -x "$prefix/ureg" ] || return 0
  if [ "$(uname -s)" = Darwin ]; then
    if [ "$scope" = user ]; then domain=gui/$(id -u); else domain=system; fi
    if launchctl print "$domain/com.universal.registry" >/dev/null 2>&1; then
      say 'stopping the service for the upgrade'
      launchctl bootout "$domain/com.universal.registry" || die 'launchctl could not stop the service'
      now=--now
    fi
  elif [ -d /run/systemd/system ]; then
    manager=systemctl
    [ "$scope" = system ] || manager='systemctl --user'
    # shellcheck disable=SC2086  # two words
    if $manager is-active --quiet universal-registry 2>/dev/null; then
      say 'stopping the service for the upgrade'
      $manager stop universal-registry || die 'systemctl could not stop the service'
      now=--now
    fi
  fi
  stopped=$(REGISTRY_HOME=$prefix sh "$prefix/ureg" down 2>/dev/null) || return 0
  [ -z "$stopped" ] || say "$stopped; it was started by hand: start it again afterwards"
}

# Beside its place first, so that a full disk or a lost connection leaves the program that is there.
copy_program() {
  fresh=$prefix/.new
  rm -rf "$fresh" || exit 1
  mkdir -p "$fresh" || die "$prefix cannot be made"
  for name in $PROGRAM; do
    [ -e "$source/$name" ] || continue
    cp -R "$source/$name" "$fresh/" || die "$name cannot be copied to $fresh"
  done
  find "$fresh" -name __pycache__ -type d -prune -exec rm -rf {} +
  if [ "$scope" = system ]; then
    chmod -R u=rwX,go=rX "$fresh" || exit 1
    [ "$(id -u)" -ne 0 ] || chown -R 0:0 "$fresh" || exit 1
  fi
}

place_program() {
  rm -rf "$prefix/.old" && mkdir "$prefix/.old" || exit 1
  for name in $PROGRAM; do
    [ ! -e "$prefix/$name" ] || mv "$prefix/$name" "$prefix/.old/" || exit 1
    [ ! -e "$prefix/.new/$name" ] || mv "$prefix/.new/$name" "$prefix/" || exit 1
  done
  rm -rf "$prefix/.old" "$prefix/.new"
}

# config.py is people's: one that was edited stays, and the new one is put beside it. config.py.dist is as we brought it.
place_config() {
  if [ ! -e "$prefix/config.py" ] || cmp -s "$prefix/config.py" "$prefix/config.py.dist"; then
    cp "$source/config.py" "$prefix/config.py" || exit 1
  elif ! cmp -s "$source/config.py" "$prefix/config.py.dist" && ! cmp -s "$source/config.py" "$prefix/config.py"; then
    say "kept your $prefix/config.py; the new one is config.py.dist beside it"
  fi
  cp "$source/config.py" "$prefix/config.py.dist" && chmod 644 "$prefix/config.py" "$prefix/config.py.dist" || exit 1
}

make_environment() {
  if [ -n "$venv" ]; then
    [ -x "$venv/bin/python" ] || die "--venv: there is no $venv/bin/python" 2
    if [ -e "$prefix/.venv" ] || [ -h "$prefix/.venv" ]; then rm -rf "$prefix/.venv" || exit 1; fi
    ln -s "$venv" "$prefix/.venv" || exit 1
    "$prefix/.venv/bin/python" -I "$prefix/scripts/make_venv.py" --usable ||
      die "--venv: $venv lacks packages of requirements.txt" 2
    "$prefix/.venv/bin/python" -I -m compileall -q "$prefix/universal_registry" >/dev/null
  else
    [ ! -h "$prefix/.venv" ] || rm "$prefix/.venv" || exit 1
    (umask 022 && sh "$prefix/scripts/setup.sh" runtime) || exit $?
  fi
}

# --- what shells and people find --------------------------------------------------------------------------------------

# $1: the command that writes it, $2: where it goes. What this version cannot write yet is left out.
write_help() {
  mkdir -p "$(dirname -- "$2")" || exit 1
  if REGISTRY_HOME=$prefix sh "$prefix/ureg" completion "$1" >"$2.new" 2>/dev/null && [ -s "$2.new" ]; then
    mv "$2.new" "$2" && chmod 644 "$2"
  else
    rm -f "$2.new"
  fi
}

completion_files() {
  printf 'bash %s\n' "$share/bash-completion/completions/ureg"
  printf 'zsh %s\n' "$share/zsh/site-functions/_ureg"
  printf 'fish %s\n' "$share/fish/vendor_completions.d/ureg.fish"
}

place_help() {
  mkdir -p "$bin" || exit 1
  if [ -e "$bin/ureg" ] && [ ! -h "$bin/ureg" ]; then
    say "left $bin/ureg as it is: it is not a link of ours; run $prefix/ureg"
  else
    ln -sf "$prefix/ureg" "$bin/ureg" || exit 1
  fi
  completion_files | while read -r shell file; do write_help "$shell" "$file"; done
  if [ -f "$prefix/scripts/man.py" ]; then
    mkdir -p "$share/man/man1" || exit 1
    "$prefix/.venv/bin/python" "$prefix/scripts/man.py" "$share/man/man1" >/dev/null || die 'no manual pages were written'
  fi
}

remove_help() {
  [ ! -h "$bin/ureg" ] || [ "$(readlink "$bin/ureg")" != "$prefix/ureg" ] || rm -f "$bin/ureg"
  completion_files | while read -r _ file; do rm -f "$file"; done
  rm -f "$share"/man/man1/ureg.1 "$share"/man/man1/ureg-*.1
}

# --- doing it ---------------------------------------------------------------------------------------------------------

program=$prefix
if [ -n "$uninstall" ]; then
  if [ ! -x "$prefix/ureg" ]; then
    # An uninstallation has left the data: with --purge the program of this checkout removes that.
    if [ -z "$purge" ] || ! holds_data; then die "there is no registry in $prefix" 3; fi
    program=$source
    [ -z "$venv" ] || export REGISTRY_PYTHON="$venv/bin/python"
  fi
  service uninstall $purge
  code=$?
  # 3: no service is installed any more; a second attempt then removes the rest.
  [ $code -eq 0 ] || [ $code -eq 3 ] || exit $code
  remove_help
  for name in $PROGRAM config.py.dist .venv .venv.log .venv.lock .new .old; do rm -rf "${prefix:?}/$name"; done
  if [ -n "$purge" ]; then
    rm -f "$prefix/config.py"
    rm -rf "$prefix/__pycache__"
  fi
  rmdir "$prefix" 2>/dev/null || true
  say "removed the program from $prefix"
  exit 0
fi

[ "$source" != "$prefix" ] || die "this is the installed program; run the script of a checkout" 2
[ -f "$source/pyproject.toml" ] && [ -d "$source/universal_registry" ] || die "$source is not a whole checkout" 2
mkdir -p "$prefix" || die "$prefix cannot be made"
copy_program
stop_daemon
place_program
place_config
make_environment
place_help
service install $now || exit $?
say "installed in $prefix; the command is $bin/ureg"
