# Completion of ureg for fish 3.1 and newer; made by: ureg completion fish

set -e __ureg_groups
set -e __ureg_paths
set -e __ureg_valued

# Whether the words before the cursor lead to this command, and so many operands stand there: at least FROM, at most TO.
function __ureg_at --argument-names wanted from to
    set -l path ureg
    set -l place 0
    set -l skip 0
    set -g __ureg_kind
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        if string match -q -- '-*' $word
            contains -- "$path:$word" $__ureg_valued; and set skip 1
            continue
        end
        if contains -- "$path $word" $__ureg_paths
            set path "$path $word"
        else
            test $place = 0; and set -g __ureg_kind $word
            set place (math $place + 1)
        end
    end
    test "$path" = "$wanted"; or return 1
    test -n "$from"; or return 0
    test $place -ge $from -a $place -le $to
end

function __ureg_kinds
    printf '%s\n' $__ureg_kinds
end

# The names of a sort, a line each: from the daemon's socket with curl, else from ureg.
function __ureg_named --argument-names sort
    if test "$sort" != names
        command ureg $sort ls -o name 2>/dev/null
        return
    end
    string match -qr '^[a-z_]+$' -- "$__ureg_kind"; or return
    set -l data (test -n "$XDG_DATA_HOME"; and echo $XDG_DATA_HOME; or echo $HOME/.local/share)
    set -l config (test -n "$XDG_CONFIG_HOME"; and echo $XDG_CONFIG_HOME; or echo $HOME/.config)
    set -l home (test -n "$REGISTRY_HOME"; and echo $REGISTRY_HOME; or echo $data/universal-registry)
    if test -z "$REGISTRY_CONTEXT" -a -r $home/run/address; and begin
            test -n "$REGISTRY_HOME"; or not test -e $config/universal-registry/contexts.json
        end
        read -l socket <$home/run/address
        if test -S "$socket"; and command -q curl
            command curl -gsf -m 2 --unix-socket $socket -H 'Accept: text/tab-separated-values' \
                "http://localhost/v1/-/records?kind=$__ureg_kind&limit=1000" | string split -f1 \t
            return
        end
    end
    command ureg get $__ureg_kind -o tsv 2>/dev/null | string split -f1 \t
end

#@TABLES@
