#compdef ureg
# Completion of ureg for zsh; made by: ureg completion zsh

#@TABLES@

# The names of a sort, a line each: from the daemon's socket with curl, else from ureg.
_ureg_named() {
  local sort=$1 kind=$2 socket=
  local home=${REGISTRY_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/universal-registry}
  if [[ $sort == names ]]; then
    [[ $kind == [a-z_]## ]] || return 0
    if [[ -z ${REGISTRY_CONTEXT-} && ( -n ${REGISTRY_HOME-} || ! -e ${XDG_CONFIG_HOME:-$HOME/.config}/universal-registry/contexts.json ) ]] &&
      { IFS= read -r socket <$home/run/address } 2>/dev/null && [[ -S $socket ]] && (( $+commands[curl] )); then
      command curl -gsf -m 2 --unix-socket $socket -H 'Accept: text/tab-separated-values' \
        "http://localhost/v1/-/records?kind=$kind&limit=1000" | command cut -f1
      return
    fi
    command ureg get $kind -o tsv 2>/dev/null | command cut -f1
    return
  fi
  command ureg $sort ls -o name 2>/dev/null
}

_ureg() {
  emulate -L zsh -o extended_glob
  local REPLY at=ureg before= kind= word source skip=
  local -i place=0
  for word in ${(@Q)words[2,CURRENT-1]}; do
    if [[ -n $skip ]]; then skip= before=; continue; fi
    if [[ $word == -* ]]; then
      _ureg_takes "$at:$word"
      if [[ -n $REPLY ]]; then skip=1 before=$word; fi
      continue
    fi
    _ureg_commands $at
    if [[ $'\n'$REPLY == *$'\n'${(b)word}:* ]]; then
      at="$at $word"
    else
      (( place == 0 )) && kind=$word
      (( place += 1 ))
    fi
  done
  if [[ -n $before ]]; then
    _ureg_takes "$at:$before"
    source=$REPLY
  elif [[ $words[CURRENT] == -* ]]; then
    _ureg_flags $at
    local -a flags=(${(f)REPLY})
    _describe -o option flags
    return
  else
    _ureg_commands $at
    if [[ -n $REPLY ]]; then
      local -a inner=(${(f)REPLY})
      _describe command inner
      return
    fi
    _ureg_takes "$at:$place"
    source=$REPLY
  fi
  case $source in
    (words\ *) compadd -- ${=source#words } ;;
    (kinds) compadd -- ${=_ureg_kinds} ;;
    (files) _files ;;
    (nothing|'') _message 'a word of your own' ;;
    (*) compadd -- ${(f)"$(_ureg_named $source $kind)"} ;;
  esac
}

if [[ $funcstack[1] == _ureg ]]; then
  _ureg "$@"
else
  compdef _ureg ureg
fi
