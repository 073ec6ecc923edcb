#!/bin/sh
# The registry's commands for scripts in plain sh. Each goes to `ureg` as it stands: the same records, events and exit
# codes. Nothing here reads or builds data.

usage() {
  cat <<'TEXT'
usage: registry_cli.sh COMMAND [ARGUMENTS]

  init                                          make the stores and the key (twice does no harm)
  status                                        what runs, what waits, what failed
  unidirectional --source NAME --target NAME    send a record, and each later change of it, to a target
  bidirectional  --source NAME --target NAME    keep a record the same here and there (waits for peers)
  multicast      --source NAME --targets "A,B"  send to some targets
  broadcast      --source NAME [--exclude "A"]  send to all targets but some
  fanout         --source NAME --targets "A,B"  send to many targets side by side
  chain          --source NAME --targets "A,B"  send to targets one after the other
  mesh           NAME NAME...                   keep records the same everywhere (waits for peers)
  enable-stream  ID PROTOCOL                    open a stream (not built yet)
  help                                          this text

Also without flags: unidirectional SOURCE TARGET PAYLOAD, bidirectional A B PAYLOAD, multicast SOURCE TARGET... PAYLOAD,
broadcast SOURCE PAYLOAD. A payload is JSON, @FILE, - (standard input) or text; as the last word of multicast it is not
plain text. Without one it is the record itself, now and after each change. COMMAND --help says more; ./ureg does more.
TEXT
}

case ${1:-help} in
  init | status | unidirectional | bidirectional | multicast | broadcast | fanout | chain | mesh) ;;
  enable-stream) ;;
  help | -h | --help)
    usage
    exit 0
    ;;
  *)
    printf 'registry_cli.sh: unknown command "%s"; "registry_cli.sh help" lists them, and ./ureg has more\n' "$1" >&2
    exit 2
    ;;
esac

self=$0
case $self in */*) ;; *) self=./$self ;; esac
while [ -h "$self" ]; do
  link=$(readlink "$self") || exit 1
  case $link in /*) self=$link ;; *) self=${self%/*}/$link ;; esac
done
root=$(CDPATH='' cd -P -- "${self%/*}/.." && pwd -P) || exit 1

exec sh "$root/ureg" "$@"
