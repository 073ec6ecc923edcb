#!/bin/sh
# The registry's commands for scripts in plain sh (docs/reference/sh.md). A plain call goes to the running daemon by
# curl over its Unix socket, without starting a Python; all others, and all without a daemon, go to `ureg` as they stand:
# the same records, events, messages and exit codes. Values travel as form fields, never pasted into JSON, and on
# standard input, never in the arguments of another program.

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

Also without flags: unidirectional SOURCE TARGET [DATA [PROTOCOL]], bidirectional A B, multicast SOURCE TARGET... DATA,
broadcast SOURCE [DATA], fanout SOURCE TARGET..., chain SOURCE TARGET.... DATA is JSON, @FILE, - (standard input) or
text; as the last word of multicast it is not plain text. Without it what is sent is the record itself, now and after
each change. COMMAND --help says more. Every command of `ureg` can be called: `ureg --help` lists them.
TEXT
}

self=$0
case $self in */*) ;; *) self=./$self ;; esac
while [ -h "$self" ]; do
  link=$(readlink "$self") || exit 1
  case $link in /*) self=$link ;; *) self=${self%/*}/$link ;; esac
done
root=$(CDPATH='' cd -P -- "${self%/*}/.." && pwd -P) || exit 1

tab=$(printf '\t')
nl='
'

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

# --- asking the daemon ------------------------------------------------------------------------------------------------

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

# Adds a field to $form. What a form needs encoded is encoded; all other bytes may stand as they are.
field() {
  value=$2
  case $value in
    *[%\&+]*)
      value=$(printf '%sx' "$value" | sed -e 's/%/%25/g' -e 's/&/%26/g' -e 's/+/%2B/g')
      value=${value%x}
      ;;
  esac
  form="$form&$1=$value"
}

# Sets $encoded to a name as it stands in a query.
encode() {
  encoded=$1
  case $1 in
    *[!abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~-]*)
      encoded=$(printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g')
      ;;
  esac
}

by_curl() {
  curl -q -s --noproxy '*' --max-time 125 --unix-socket "$socket" -H 'accept: text/tab-separated-values' \
    -w '\n%{http_code}' "$@"
}

# Asks: method, path with query. $form is sent, and the file $upload as its field `data`. Sets $body. An answer that
# tells of an error is told, and ends the script with its exit code; fails when nobody was reached.
ask() {
  if [ -n "$upload" ]; then
    answer=$(by_curl -X "$1" ${form:+--data-binary "${form#&}"} --data-urlencode "data@$upload" "http://localhost$2")
  elif [ -n "$form" ]; then
    answer=$(printf '%s' "${form#&}" | by_curl -X "$1" --data-binary @- "http://localhost$2")
  else
    answer=$(by_curl -X "$1" "http://localhost$2")
  fi
  reached=$?
  [ "$reached" -ne 7 ] || return 1
  http=${answer##*"$nl"}
  body=${answer%"$nl"*}
  body=${body%"$nl"}
  if [ "$reached" -ne 0 ]; then
    printf 'ureg: %s broke the connection; what was asked may or may not have been done\n' "$socket" >&2
    exit 7
  fi
  case $http in
    2??) return 0 ;;
  esac
  refused
}

# Tells of an error: its cells are exit code, code, message, hint.
refused() {
  cells "$body"
  case $cell2 in
    malformed | too-large) [ -z "$doubtful" ] || return 1 ;;
  esac
  case $cell1 in
    '' | *[!0123456789]*)
      printf 'ureg: the answer of %s (%s) is not one of a registry\n' "$socket" "$http" >&2
      exit 7
      ;;
  esac
  printf 'ureg: %s%s\n' "$cell3" "${cell4:+ ($cell4)}" >&2
  exit "$cell1"
}

# Splits a line into $cell1 to $cell6.
cells() {
  rest=$1$tab
  cell1=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell2=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell3=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell4=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell5=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell6=${rest%%"$tab"*}
}

# Writes the items of a list (a cell, line ends written \n) to standard error, each behind the given word.
notes() {
  rest=$2
  while [ -n "$rest" ]; do
    printf '%s%s\n' "$1" "${rest%%\\n*}" >&2
    case $rest in *\\n*) rest=${rest#*\\n} ;; *) rest= ;; esac
  done
}

# --- data -------------------------------------------------------------------------------------------------------------

# Takes the data of an event. Text that looks like JSON must be JSON: when the registry says that it is not, ureg has
# more to say. Fails for what is blank, and for what only ureg can say something about.
take_data() {
  case $1 in
    -)
      upload=-
      ;;
    @*)
      upload=${1#@}
      [ -f "$upload" ] && [ -r "$upload" ] && [ -s "$upload" ] || return 1
      case $upload in -) upload=./- ;; esac
      doubtful=1
      ;;
    '{'* | '['*)
      field data: "$1"
      doubtful=1
      ;;
    *[![:space:]]*)
      field data "$1"
      ;;
    *) return 1 ;;
  esac
}

# --- propagation ------------------------------------------------------------------------------------------------------

# Adds the names in a comma list as fields. Fails for an address, with which ureg has more to do.
add_names() {
  rest=$2,
  while [ -n "$rest" ]; do
    item=${rest%%,*}
    rest=${rest#*,}
    item=${item#"${item%%[! ]*}"}
    item=${item%"${item##*[! ]}"}
    case $item in
      '') ;;
      *://*) return 1 ;;
      *) field "$1" "$item" ;;
    esac
  done
}

# The flags that a mode has, read once over all words; $words counts those that are none.
read_flags() {
  words=0
  while [ $# -gt 0 ]; do
    case $1 in
      --source | --target | --targets | --exclude | --data | --on-failure)
        [ $# -ge 2 ] || return 1
        flag=$1 given=$2
        shift
        ;;
      --source=* | --target=* | --targets=* | --exclude=* | --data=* | --on-failure=*) flag=${1%%=*} given=${1#*=} ;;
      --once | --follow | --strict) flag=$1 given=true ;;
      -?*) return 1 ;;
      *) flag=word ;;
    esac
    shift
    case $mode:$flag in
      *:word) words=$((words + 1)) ;;
      *:--source) source=$given && [ -n "$given" ] || return 1 ;;
      unidirectional:--target | bidirectional:--target) target=$given && [ -n "$given" ] || return 1 ;;
      multicast:--targets | fanout:--targets | chain:--targets) add_names targets "$given" && listed=1 || return 1 ;;
      broadcast:--exclude) add_names exclude "$given" || return 1 ;;
      broadcast:--follow | *:--strict) field "${flag#--}" true ;;
      chain:--on-failure) field on_failure "$given" ;;
      bidirectional:*) return 1 ;;
      *:--once) field once true ;;
      *:--data) data=$given has_data=1 ;;
      *) return 1 ;;
    esac
  done
}

# The words between the flags, in their order: what no flag has said.
read_words() {
  while [ $# -gt 0 ]; do
    word=$1
    shift
    case $word in
      --source | --target | --targets | --exclude | --data | --on-failure)
        shift
        continue
        ;;
      -?*) continue ;;
    esac
    words=$((words - 1))
    if [ -z "$source" ]; then
      source=$word
      [ -n "$source" ] || return 1
      continue
    fi
    case $mode in
      unidirectional | bidirectional)
        if [ -z "$target" ]; then
          target=$word
          [ -n "$target" ] || return 1
          continue
        fi
        ;;
      multicast)
        if [ "$words" -gt 0 ] || [ -n "$has_data" ]; then
          add_word "$word" || return 1
          continue
        fi
        case $word in '{'* | '['* | @* | -) ;; *) return 1 ;; esac
        ;;
      fanout | chain)
        case $word in '{'* | '['* | @* | -) return 1 ;; esac
        add_word "$word" || return 1
        continue
        ;;
    esac
    [ -z "$has_data" ] && [ "$mode" != bidirectional ] || return 1
    data=$word has_data=1
  done
}

add_word() {
  case $1 in '' | *://*) return 1 ;; esac
  field targets "$1"
  listed=1
}

propagate() {
  mode=$1
  shift
  form='' upload='' doubtful='' source='' target='' data='' has_data='' listed=''
  read_flags "$@" && read_words "$@" || return 1
  [ -n "$source" ] || return 1
  case $mode in
    unidirectional | bidirectional)
      case $target in '' | *://*) return 1 ;; esac
      field targets "$target"
      ;;
    multicast | fanout | chain) [ -n "$listed" ] || return 1 ;;
  esac
  field mode "$mode"
  field source "$source"
  [ -z "$has_data" ] || take_data "$data" || return 1
  columns='column=session&column=standing&column=source&column=targets%5B%5D&column=notes%5B%5D&column=warnings%5B%5D'
  ask POST "/v1/-/propagate?$columns" || return 1
  told "$mode"
}

# Says what was stored, as ureg does.
told() {
  cells "$body"
  session=$cell1 standing=$cell2 source=$cell3 targets=$cell4
  notes '' "$cell5"
  notes 'warning: ' "$cell6"
  form='' upload='' doubtful=''
  ask GET "/v1/-/sessions/$session?column=state" || exit 7
  names=
  rest=$targets
  while [ -n "$rest" ]; do
    item=${rest%%\\n*}
    names="$names${names:+, }${item#system/}"
    case $rest in *\\n*) rest=${rest#*\\n} ;; *) rest= ;; esac
  done
  lasting=' once'
  [ "$standing" != true ] || lasting=' and each later change'
  case $1 in
    bidirectional) printf 'session %s %s: %s here and at %s\n' "$session" "$body" "$source" "${names:-nobody yet}" ;;
    *) printf 'session %s %s: %s gets %s%s\n' "$session" "$body" "${names:-nobody yet}" "$source" "$lasting" ;;
  esac
}

# --- records and streams ----------------------------------------------------------------------------------------------

set_record() {
  [ $# -ge 3 ] || return 1
  kind=$1
  encode "$2"
  form='' upload='' doubtful=''
  case $kind in '' | *[!abcdefghijklmnopqrstuvwxyz_]*) return 1 ;; esac
  case $2 in '' | -?*) return 1 ;; esac
  shift 2
  for word in "$@"; do
    case $word in
      -* | [!abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_]* | *=@* | *=- | spec:=*) return 1 ;;
      *=*) ;;
      *) return 1 ;;
    esac
    case ${word%%=*} in *[!abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:]*) return 1 ;; esac
    field "${word%%=*}" "${word#*=}"
  done
  columns='column=record.kind&column=record.namespace&column=record.name&column=effect&column=revision'
  ask PATCH "/v1/default/$kind/-?name=$encoded&$columns&column=warnings%5B%5D" || return 1
  cells "$body"
  notes 'warning: ' "$cell6"
  printf '%s/%s/%s %s, revision %s\n' "$cell1" "$cell2" "$cell3" "$cell4" "$cell5"
}

send_data() {
  [ $# -eq 2 ] && [ -n "$1" ] || return 1
  case $1 in -* | . | ..) return 1 ;; esac
  form='' upload='' doubtful=''
  encode "$1"
  take_data "$2" || return 1
  ask POST "/v1/-/streams/$encoded?column=stream&column=revision" || return 1
  cells "$body"
  printf 'sent to %s at revision %s\n' "$cell1" "$cell2"
}

# A list or a text: path and query.
show() {
  form='' upload='' doubtful=''
  ask GET "$1" || return 1
  [ -z "$body" ] || printf '%s\n' "$body"
}

get_record() {
  case $1 in '' | *[!abcdefghijklmnopqrstuvwxyz_]*) return 1 ;; esac
  case $2 in '' | -?*) return 1 ;; esac
  encode "$2"
  show "/v1/default/$1/-?name=$encoded"
}

# --- the commands -----------------------------------------------------------------------------------------------------

command=${1:-help}
case $command in
  help | -h | --help)
    usage
    exit 0
    ;;
  unidirectional | bidirectional | multicast | broadcast | fanout | chain)
    ! find_daemon || ! propagate "$@" || exit 0
    ;;
  set)
    shift
    ! find_daemon || ! set_record "$@" || exit 0
    set -- set "$@"
    ;;
  get)
    case $#:$2 in
      3:*) ! find_daemon || ! get_record "$2" "$3" || exit 0 ;;
    esac
    case $#:$*: in
      1:* | *' -'*) ;;
      *) set -- "$@" -o tsv ;;
    esac
    ;;
  stream)
    [ "${2:-}" != send ] || [ $# -ne 4 ] || ! find_daemon || ! send_data "$3" "$4" || exit 0
    ;;
  metrics)
    [ $# -ne 1 ] || ! find_daemon || ! show /metrics || exit 0
    ;;
  start) shift && set -- up "$@" ;;
  stop) shift && set -- down "$@" ;;
  restart)
    shift
    (to_ureg down "$@") || exit $?
    set -- up "$@"
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
