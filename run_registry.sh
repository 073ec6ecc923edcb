#!/usr/bin/env bash
# Runs the registry's daemon in the foreground (or with `&`) until SIGTERM or SIGINT: `ureg serve`, with this folder as
# its home unless REGISTRY_HOME or --home says otherwise. Works on a fresh clone; bash 3.2 is enough.

self=$0
case $self in */*) ;; *) self=./$self ;; esac
while [ -h "$self" ]; do
  link=$(readlink "$self") || exit 1
  case $link in /*) self=$link ;; *) self=${self%/*}/$link ;; esac
done
root=$(CDPATH='' cd -P -- "${self%/*}/" && pwd -P) || exit 1

exec sh "$root/ureg" serve "$@"
