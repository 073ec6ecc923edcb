# Completion of ureg for bash 3.2 and newer; made by: ureg completion bash
# shellcheck shell=bash disable=SC2016,SC2034,SC2207

#@TABLES@

# Where am I? Sets _ureg_path, _ureg_place (operands before the cursor), _ureg_kind and _ureg_before (an option that waits).
_ureg_walk() {
  local word skip=
  _ureg_path=ureg _ureg_place=0 _ureg_kind= _ureg_before=
  for word in "$@"; do
    if [[ -n $skip ]]; then skip= _ureg_before=; continue; fi
    if [[ $word == -* ]]; then
      _ureg_takes "$_ureg_path:$word"
      if [[ -n $REPLY ]]; then skip=1 _ureg_before=$word; fi
      continue
    fi
    _ureg_commands "$_ureg_path"
    if [[ $'\n'$REPLY == *$'\n'"$word":* ]]; then
      _ureg_path="$_ureg_path $word"
    else
      [[ $_ureg_place == 0 ]] && _ureg_kind=$word
      _ureg_place=$((_ureg_place + 1))
    fi
  done
}

# The names of a sort, a line each: from the daemon's socket with curl, else from ureg.
_ureg_named() {
  local sort=$1 kind=$2 home=${REGISTRY_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/universal-registry} socket=
  if [[ $sort == names ]]; then
    [[ $kind =~ ^[a-z_]+$ ]] || return 0
    if [[ -z $REGISTRY_CONTEXT && ( -n $REGISTRY_HOME || ! -e ${XDG_CONFIG_HOME:-$HOME/.config}/universal-registry/contexts.json ) ]] &&
      { IFS= read -r socket <"$home/run/address"; } 2>/dev/null && [[ -S $socket ]] && command -v curl >/dev/null; then
      curl -gsf -m 2 --unix-socket "$socket" -H 'Accept: text/tab-separated-values' \
        "http://localhost/v1/-/records?kind=$kind&limit=1000" | cut -f1
      return
    fi
    command ureg get "$kind" -o tsv 2>/dev/null | cut -f1
    return
  fi
  command ureg "$sort" ls -o name 2>/dev/null
}

_ureg_complete() {
  local current=${COMP_WORDS[COMP_CWORD]} source= line
  local IFS=$'\n'
  COMPREPLY=()
  _ureg_walk "${COMP_WORDS[@]:1:COMP_CWORD-1}"
  if [[ -n $_ureg_before ]]; then
    _ureg_takes "$_ureg_path:$_ureg_before"
    source=$REPLY
  elif [[ $current == -* ]]; then
    _ureg_flags "$_ureg_path"
    while IFS= read -r line; do
      [[ ${line%%:*} == "$current"* ]] && COMPREPLY+=("${line%%:*}")
    done <<<"$REPLY"
    return
  else
    _ureg_commands "$_ureg_path"
    if [[ -n $REPLY ]]; then
      while IFS= read -r line; do
        [[ ${line%%:*} == "$current"* ]] && COMPREPLY+=("${line%%:*}")
      done <<<"$REPLY"
      return
    fi
    _ureg_takes "$_ureg_path:$_ureg_place"
    source=$REPLY
  fi
  case $source in
    'words '*) COMPREPLY=($(compgen -W "$(printf '%s' "${source#words }" | tr ' ' '\n')" -- "$current")) ;;
    kinds) COMPREPLY=($(compgen -W "$(printf '%s' "$_ureg_kinds" | tr ' ' '\n')" -- "$current")) ;;
    files) COMPREPLY=($(compgen -f -- "$current")); compopt -o filenames 2>/dev/null ;;
    nothing | '') ;;
    *)
      while IFS= read -r line; do
        [[ $line == "$current"* ]] && COMPREPLY+=("$(printf '%q' "$line")")
      done < <(_ureg_named "$source" "$_ureg_kind")
      ;;
  esac
}

complete -F _ureg_complete ureg
