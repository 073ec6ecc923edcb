# shellcheck shell=sh disable=SC2154  # registry_cli.sh has set $socket
# What registry_cli.sh asks of a running daemon, which listens at $socket. Each command ends with 0 when it is done, ends
# the script with the exit code of `ureg` when the registry has refused it, and fails, with nothing done and nothing
# said, where only ureg knows what to do. Values travel as form fields, never pasted into JSON, and on standard input,
# never in the arguments of another program. There is one fork for each call, and for odd names and values some more.

tab='	'
nl='
'
most=100

by_daemon() {
  command=$1
  shift
  form='' upload='' doubtful='' words=''
  case $command in
    get) get_records "$@" ;;
    set) set_record "$@" ;;
    stream) [ "${1:-}" = send ] && shift && send_data "$@" ;;
    metrics) [ $# -eq 0 ] && show /metrics ;;
    status) [ $# -eq 0 ] && status ;;
    targets | sessions) [ $# -eq 0 ] && show "/v1/-/$command" ;;
    deliveries) [ $# -eq 0 ] && show_page "$most" '/v1/-/deliveries?' ;;
    events) events "$@" ;;
    *) propagate "$command" "$@" ;;
  esac
}

# --- asking -----------------------------------------------------------------------------------------------------------

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
  curl -q -s --noproxy '*' --max-time 125 --unix-socket "$socket" -H "accept: ${words}text/tab-separated-values" \
    -w '\n%{http_code}' "$@"
}

# Asks: method, path with query. $form is sent, and the file $upload as its field `data`. Sets $body. An answer that
# tells of an error is told, and ends the script with its exit code; fails when nobody was reached, and for an error of
# a sort in $doubtful (words between spaces), of which ureg may know better.
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
  case " $doubtful " in
    *" $cell2 "*) return 1 ;;
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

# Splits a line into $cell1 to $cell7.
cells() {
  rest=$1$tab
  cell1=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell2=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell3=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell4=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell5=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell6=${rest%%"$tab"*} rest=${rest#*"$tab"}
  cell7=${rest%%"$tab"*}
}

# Writes the items of a list (a cell, line ends written \n) to standard error, each behind the given word.
notes() {
  rest=$2
  while [ -n "$rest" ]; do
    printf '%s%s\n' "$1" "${rest%%\\n*}" >&2
    case $rest in *\\n*) rest=${rest#*\\n} ;; *) rest= ;; esac
  done
}

# --- lists ------------------------------------------------------------------------------------------------------------

# A list or a text: path and query.
show() {
  ask GET "$1" || return 1
  [ -z "$body" ] || printf '%s\n' "$body"
}

# What the daemon cannot say of itself is in the files that it has made. Fails for a home that may have another name.
status() {
  case $home in */..) home=$(CDPATH='' cd -P -- "$home" && pwd -P) || return 1 ;; esac
  case $home in
    [!/]* | *[!abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-]* | *//* | */./* | */../* | */. | */)
      return 1
      ;;
  esac
  [ -r "$home/run/ureg.pid" ] && IFS= read -r pid <"$home/run/ureg.pid" || return 1
  listens=
  while IFS= read -r line; do
    listens="$listens${listens:+, }$line"
  done <"$home/run/address"
  width=
  if [ -t 1 ]; then
    { width=$(stty size <&3 2>/dev/null) || return 1; } 3>&1
    width="?width=${width#* }"
  fi
  words='text/plain, '
  ask GET "/v1/-/status$width" || return 1
  printf 'home      %s\ndaemon    pid %s, %s\n%s\n' "$home" "$pid" "$listens" "$body"
}

# A list that is not longer than so many lines; of a longer one ureg shows more, or says that there is more.
show_page() {
  ask GET "$2limit=$(($1 + 1))" || return 1
  count_lines "$body"
  [ "$lines" -le "$1" ] || return 1
  [ -z "$body" ] || printf '%s\n' "$body"
}

# Sets $lines. No line of a list is empty.
count_lines() {
  set -f
  IFS=$nl
  # shellcheck disable=SC2086  # into lines
  set -- $1
  unset IFS
  set +f
  lines=$#
}

events() {
  case $#:${1:-} in
    0:) show_page "$most" '/v1/-/deliveries?' ;;
    1:-* | 1:) return 1 ;;
    1:*)
      encode "$1"
      show_page "$most" "/v1/-/deliveries?session=$encoded&"
      ;;
    *) return 1 ;;
  esac
}

get_records() {
  case ${1:-} in '' | *[!abcdefghijklmnopqrstuvwxyz_]*) return 1 ;; esac
  case $#:${2:-} in
    1:)
      doubtful='invalid'
      show_page 999 "/v1/-/records?kind=$1&"
      ;;
    2: | 2:-?*) return 1 ;;
    2:*)
      encode "$2"
      doubtful='not-found' # it may be in another namespace
      show "/v1/default/$1/-?name=$encoded"
      ;;
    *) return 1 ;;
  esac
}

# --- records and streams ----------------------------------------------------------------------------------------------

set_record() {
  [ $# -ge 3 ] || return 1
  kind=$1
  encode "$2"
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
  encode "$1"
  take_data "$2" || return 1
  ask POST "/v1/-/streams/$encoded?column=stream&column=revision" || return 1
  cells "$body"
  printf 'sent to %s at revision %s\n' "$cell1" "$cell2"
}

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
      doubtful='malformed too-large'
      ;;
    '{'* | '['*)
      field data: "$1"
      doubtful='malformed too-large'
      ;;
    *[![:space:]]*)
      field data "$1"
      ;;
    *) return 1 ;;
  esac
}

# --- propagation ------------------------------------------------------------------------------------------------------

# MODE, then flags and words in any order. Flags are taken as they come; the words behind them are then only words.
propagate() {
  mode=$1 left=$(($# - 1)) source='' target='' data='' has_data='' listed=''
  shift
  while [ "$left" -gt 0 ]; do
    word=$1 left=$((left - 1))
    shift
    case $word in
      --source | --target | --targets | --exclude | --data | --on-failure)
        [ "$left" -gt 0 ] && take_flag "$word" "$1" || return 1
        left=$((left - 1))
        shift
        ;;
      --source=* | --target=* | --targets=* | --exclude=* | --data=* | --on-failure=*)
        take_flag "${word%%=*}" "${word#*=}" || return 1
        ;;
      --once | --follow | --strict) take_flag "$word" true || return 1 ;;
      -?*) return 1 ;;
      *) set -- "$@" "$word" ;;
    esac
  done
  take_words "$@" || return 1
  field mode "$mode"
  field source "$source"
  [ -z "$has_data" ] || take_data "$data" || return 1
  columns='column=session&column=state&column=standing&column=source&column=targets%5B%5D&column=notes%5B%5D'
  ask POST "/v1/-/propagate?state=true&$columns&column=warnings%5B%5D" || return 1
  told
}

# A flag that the mode has.
take_flag() {
  case $mode:$1 in
    *:--source) source=$2 && [ -n "$2" ] ;;
    unidirectional:--target | bidirectional:--target) target=$2 && [ -n "$2" ] ;;
    multicast:--targets | fanout:--targets | chain:--targets) listed=1 && add_names targets "$2" ;;
    broadcast:--exclude) add_names exclude "$2" ;;
    broadcast:--follow | *:--strict) field "${1#--}" true ;;
    chain:--on-failure) field on_failure "$2" ;;
    bidirectional:*) return 1 ;;
    *:--once) field once true ;;
    *:--data) data=$2 has_data=1 ;;
    *) return 1 ;;
  esac
}

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

# What no flag has said: the source, targets, data.
take_words() {
  if [ -z "$source" ]; then
    source=${1:-}
    [ -n "$source" ] && shift || return 1
  fi
  case $mode in
    unidirectional | bidirectional)
      if [ -z "$target" ]; then
        target=${1:-}
        [ -n "$target" ] && shift || return 1
      fi
      case $target in *://*) return 1 ;; esac
      field targets "$target"
      ;;
    multicast)
      last=1 # its last word is the data, unless a flag has given that
      [ -z "$has_data" ] || last=0
      while [ $# -gt "$last" ]; do
        add_target "$1" || return 1
        shift
      done
      case ${1:-} in '' | '{'* | '['* | @* | -) ;; *) return 1 ;; esac
      [ -n "$listed" ] || return 1
      ;;
    fanout | chain)
      for word in "$@"; do
        case $word in '{'* | '['* | @* | -) return 1 ;; esac
        add_target "$word" || return 1
      done
      [ -n "$listed" ]
      return
      ;;
  esac
  [ $# -gt 0 ] || return 0
  [ $# -eq 1 ] && [ -z "$has_data" ] && [ "$mode" != bidirectional ] || return 1
  data=$1 has_data=1
}

add_target() {
  case $1 in '' | *://*) return 1 ;; esac
  field targets "$1"
  listed=1
}

# Says what was stored, as ureg does.
told() {
  cells "$body"
  session=$cell1 state=$cell2 standing=$cell3 source=$cell4 targets=$cell5
  notes '' "$cell6"
  notes 'warning: ' "$cell7"
  names=
  rest=$targets
  while [ -n "$rest" ]; do
    item=${rest%%\\n*}
    names="$names${names:+, }${item#system/}"
    case $rest in *\\n*) rest=${rest#*\\n} ;; *) rest= ;; esac
  done
  gets=gets
  case $targets in *\\n*) gets='get' ;; esac
  lasting=' once'
  [ "$standing" != true ] || lasting=' and each later change'
  case $mode in
    bidirectional) printf 'session %s %s: %s here and at %s\n' "$session" "$state" "$source" "${names:-nobody yet}" ;;
    *) printf 'session %s %s: %s %s %s%s\n' "$session" "$state" "${names:-nobody yet}" "$gets" "$source" "$lasting" ;;
  esac
}
