#!/bin/sh
# The registry's commands for scripts in plain sh (docs/reference/sh.md). A plain call goes to the running daemon by
# curl over its Unix socket (by_daemon.sh), without starting a Python; all others, and all without a daemon, go to `ureg`
# as they stand: the same records, events, messages and exit codes.

[ -z "${ZSH_VERSION:-}" ] || emulate sh

usage() {
  cat <<'TEXT'
usage: registry_cli.sh COMMAND [ARGUMENTS]

  init                                          make the stores and the key (twice does no harm)
  status                                        what runs, what waits, what failed
  unidirectional --source NAME --target NAME    send a record, and each later change of it, to a target
  bidirectional  --source NAME --target NAME    keep a record the same here and at a peer
  multicast      --source NAME --targets "A,B"  send to some targets
  broadcast      --source NAME [--exclude "A"]  send to all targets but some
  fanout         --source NAME --targets "A,B"  send to many targets side by side
  chain          --source NAME --targets "A,B"  send to targets one after the other
  mesh           NAME NAME...                   keep records the same at several peers
  enable-stream  ID PROTOCOL                    make a stream for data of your own
  stream send ID DATA | receive ID | status [ID]
  nexus bind|sync|stream|history                studios that keep a copy
  start, stop, restart                          the daemon (also: up, down)
  set KIND NAME FIELD=VALUE...                  create a record, or change fields of it
  get KIND [NAME]                               records, a line each, cells between tabs
  targets, sessions, deliveries                 the same of these
  events [SESSION]                              deliveries not done yet, of one session if it is named
  health, metrics, doctor, checklist, backup, ...
  help                                          this text

Also without flags: unidirectional SOURCE TARGET [DATA [PROTOCOL]], bidirectional A B [DATA [PROTOCOL]],
multicast SOURCE TARGET... DATA, broadcast SOURCE [DATA], fanout SOURCE TARGET..., chain SOURCE TARGET.... DATA is JSON,
@FILE, - (standard input) or text; as the last word of multicast it is not plain text. Without it what is sent is the
record itself, now and after each change. COMMAND --help says more. Every command of `ureg` can be called: `ureg --help` lists them.
TEXT
}

self=$0
case $self in */*) ;; *) self=./$self ;; esac
while [ -h "$self" ]; do
  link=$(readlink "$self") || exit 1
  case $link in /*) self=$link ;; *) self=${self%/*}/$link ;; esac
done
here=${self%/*}
root=$here/..

to_ureg() {
  if [ -f "$root/ureg" ]; then
    exec sh "$root/ureg" "$@"
  fi
  if ! command -v ureg >/dev/null 2>&1; then
    printf 'registry_cli.sh: there is no ureg on PATH; install universal-registry\n' >&2
    exit 127
  fi
  exec ureg "$@"
}

# Sets $socket to where the daemon of this home listens; fails where only ureg may know.
find_daemon() {
  [ -z "${REGISTRY_CONTEXT:-}" ] && command -v curl >/dev/null 2>&1 || return 1
  home=${REGISTRY_HOME:-}
  if [ -z "$home" ]; then
    home=${XDG_DATA_HOME:-${HOME:-}/.local/share}/universal-registry
    if [ -f "$root/config.py" ]; then
      home=$root
    elif [ -e "${XDG_CONFIG_HOME:-${HOME:-}/.config}/universal-registry/contexts.json" ]; then
      return 1 # it may say that another registry is meant
    fi
  fi
  socket=
  [ -r "$home/run/address" ] || return 1
  IFS= read -r socket <"$home/run/address" || [ -n "$socket" ] || return 1
  case $socket in /*) [ -S "$socket" ] ;; *) return 1 ;; esac
}

command=${1:-help}
case $command in
  help | -h | --help)
    usage
    exit 0
    ;;
  unidirectional | bidirectional | multicast | broadcast | fanout | chain | set | get | stream | metrics | targets | \
    sessions | deliveries | events | status)
    if find_daemon; then
      # shellcheck source=/dev/null  # make check looks at it by itself
      . "$here/by_daemon.sh"
      ! by_daemon "$@" || exit 0
    fi
    ;;
esac

# What ureg calls otherwise.
case $command in
  start) shift && set -- up "$@" ;;
  stop) shift && set -- down "$@" ;;
  get)
    case $#:$*: in
      1:* | *' -'*) ;;
      *) set -- "$@" -o tsv ;;
    esac
    ;;
  targets | sessions)
    shift
    set -- "${command%s}" ls -o tsv "$@"
    ;;
  deliveries)
    shift
    set -- delivery ls -o tsv "$@"
    ;;
  events)
    shift
    case ${1:-} in
      '' | -*) ;;
      *) set -- --session "$@" ;;
    esac
    set -- delivery ls -o tsv "$@"
    ;;
esac

to_ureg "$@"
