"""Aliases and functions out of shell source; bash itself is the judge where it is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from universal_registry.scan import Found, Machine, Skipped, read_all
from universal_registry.scan.shellparse import ShellFile, parse

HARD = r"""
alias ll='ls -l' la="ls -A"  # a comment with ' and "
alias gs='git status -sb'
if true; then alias in_if=yes; fi
false || alias after_or="z'z"
alias -- -='cd -'
alias escaped="echo \"a\" \\ b"
alias tabbed=$'a\tb\'c'
alias joined='it'"'"'s '"two"\ words
alias with_equals='a=b=c'
alias empty=''
alias multi='first
second } line'
alias continued=one\
two
: alias not_this=1
echo alias nor_this=1
'alias' quoted_command=1
foo() { echo "}" '}' \} # } and '
  cat <<EOF
} not closed { ' "
EOF
  x=${a:-"}"} y=${b:-'}'}; case $1 in a) echo hi;; (b|c) { echo; } ;; *) ;; esac
  alias inner=1
  bar() { :; }
}
function baz { echo $(case x in a) echo b;; esac) `echo \`}\`` "$(echo "}" ')')" $(( (1 + 2) * 3 )); }
function qux() ( cd /tmp; ls )
multi_line ()
{
    for i in a b; do echo $i; done
    for ((i = 0; i < 3; i++)); do :; done
    if (( 1 << 2 )); then :; fi
    [[ $a =~ ^(x|y)$ && ( -n $b ) ]] && echo '}'
    arr=(a "b )" c)
    cat <<-'X' <<Y
	} it's
	X
"} $(
Y
    while read -r l; do echo "${l//\}/x}" ${#l} $# "$'"; done < <(ls)
}
dashed-name.x() { :; }
last_one() { :; }; alias same_line=1
cat <<"E O F"
alias in_heredoc=1
E O F
cat <<< "alias in_herestring=1"
case x in
  y) alias not_that_case=1 ;;
  (x) alias in_case=1; { alias braced_in_case=1; } ;&
  *) : ;;
esac
z="$(echo ${y:-'"}'} ")")"; alias after_nested=1
(alias in_subshell=1)
{ alias in_braces=1; }
x=$(alias in_substitution=1)
alias last=1"""


def names(parsed: ShellFile) -> tuple[dict[str, str], set[str]]:
    return {each.name: each.command for each in parsed.aliases}, {each.name for each in parsed.functions}


def bash(script: str, *arguments: str) -> str:
    program = shutil.which("bash")
    if program is None:
        pytest.skip("no bash here to compare with")
    run = subprocess.run(
        [program, "--norc", "-c", script, "bash", *arguments], capture_output=True, timeout=30, check=True
    )
    return run.stdout.decode()


def test_agrees_with_bash_on_a_hard_file(tmp_path: Path) -> None:
    file = tmp_path / "hard"
    file.write_text(HARD + "\n")
    listed = bash(
        'source "$1" >/dev/null; for n in "${!BASH_ALIASES[@]}"; do '
        'printf "%s\\0%s\\0" "$n" "${BASH_ALIASES[$n]}"; done',
        str(file),
    )
    words = listed.split("\0")[:-1]
    functions = set(bash('source "$1" >/dev/null; compgen -A function', str(file)).split())
    aliases, ours = names(parse(file.read_text(), zsh=False))
    for elsewhere in ("in_subshell", "not_that_case"):  # what a run decides: both are read, bash defines neither
        aliases.pop(elsewhere)
    assert aliases == dict(zip(words[::2], words[1::2], strict=True))
    assert ours == functions
    assert {"foo", "baz", "qux", "multi_line", "last_one"} <= functions


def test_bodies_do_the_same_when_defined_again(tmp_path: Path) -> None:
    file = tmp_path / "hard"
    file.write_text(HARD)
    parsed = parse(HARD, zsh=False)
    again = tmp_path / "again"
    again.write_text("".join(f"{each.name}() {{\n{each.body}\n}}\n" for each in parsed.functions))
    normal = [
        bash('source "$1" >/dev/null; declare -f foo baz multi_line last_one', str(path)) for path in (file, again)
    ]
    assert normal[0] == normal[1] != ""


ZSH = r"""
f() { echo hi }
g () {
  if [[ -n $1 ]] { echo a } ; echo b
}
h() {echo {a,b} $x}
i() {[[ -n ${1} ]] && {echo y} }
function j { print -r -- *(.om[1]) ${(f)x} $=y "${(@)z//\\}/}" }
alias -g G='| grep'
alias -s md=vim
alias plain=1 && alias 'two words'="it's"
function { alias anonymous=1 }
l() {
  case $1 in
    (a) echo \} "}" ;;
    b|c) for x (1 2 3) { echo $x } ;;
  esac
}
repeat 2 { alias again=1 }
{ : } always { : }
alias last=1
"""


def test_agrees_with_zsh_on_its_own_forms(tmp_path: Path) -> None:
    program = shutil.which("zsh")
    if program is None:
        pytest.skip("no zsh here to compare with")
    file = tmp_path / "hard"
    file.write_text(ZSH)
    script = (
        'unalias -m "*"; source $1; for n c in "${(@kv)aliases}" "${(@kv)galiases}" "${(@kv)saliases}"; do '
        'print -rn -- "$n"$\'\\0\'"$c"$\'\\0\'; done; print -rn -- "${(F)${(k)functions}}"'
    )
    run = subprocess.run([program, "-fc", script, "zsh", str(file)], capture_output=True, timeout=30, check=True)
    *words, functions = run.stdout.decode().split("\0")
    aliases, ours = names(parse(ZSH, zsh=True))
    assert aliases == dict(zip(words[::2], words[1::2], strict=True))
    assert ours == set(functions.split())


def test_zsh_closes_a_brace_anywhere_and_has_more_aliases() -> None:
    parsed = parse(
        "f() { echo hi }\nalias -g G='| grep'\nalias -s md=vim\ng () {\n if [[ -n $1 ]] { echo a } ; echo b\n}\n"
        "function { alias anonymous=1 }\nprint *(.om[1]) ${(f)x} $=y\nalias ok=1\n"
        "h() {echo {a,b} $x}\ni() {[[ -n ${1} ]] && {echo y} }\n",
        zsh=True,
    )
    assert [(each.name, each.body) for each in parsed.functions] == [
        ("f", "echo hi"),
        ("g", "if [[ -n $1 ]] { echo a } ; echo b"),
        ("h", "echo {a,b} $x"),
        ("i", "[[ -n ${1} ]] && {echo y}"),
    ]
    assert [(each.name, each.is_global, each.is_suffix) for each in parsed.aliases] == [
        ("G", True, False),
        ("md", False, True),
        ("anonymous", False, False),
        ("ok", False, False),
    ]


def test_what_only_running_would_tell_is_noted_with_its_line() -> None:
    parsed = parse('alias $n=1\nalias "$m"=2\nalias \'$k\'=3\none() echo hi\nalias show_me\nalias v="$X"\n', zsh=False)
    assert names(parsed)[0] == {"$k": "3", "v": "$X"}
    assert [line for line, _ in parsed.notes] == [1, 2, 4]


@pytest.mark.parametrize(
    "opened", ["'", '"', "`", "$(", "${", "$'", "f() {", "((", "[[ x", "case x in", "cat <<E\n", "{", "a=("]
)
def test_an_unclosed_thing_keeps_what_stood_before(opened: str) -> None:
    blocks = ("f() {", "{", "[[ x", "case x in")
    text = f"{opened} \nalias after=2" if opened in blocks else f"echo {opened} alias after=2\n"
    parsed = parse(f"alias before=1\n\n{text}", zsh=False)
    assert parsed.aliases[0].name == "before"
    assert [line for line, _ in parsed.notes] == [3] or opened == "(("
    assert all("alias after" not in note for _, note in parsed.notes)


@pytest.mark.parametrize(
    "piece",
    ["$(", "(", "((", "{ ", "f(){ ", "${a", '"$(', "a=(", "x$a(b)", "`", "[[ ", "a (b) ", "<<x ", "case a in ", "\\\n"],
)
@pytest.mark.parametrize("zsh", [True, False])
def test_a_bomb_of_nesting_ends_soon(piece: str, zsh: bool) -> None:
    parse(piece * (200_000 // len(piece)), zsh=zsh)  # the suite's time limit is the assertion


PIECES = st.sampled_from(
    [
        *"'\"`$(){}[]<>|&;#\\= \n\tax*!",
        "<<E\n",
        "\nE\n",
        "$((",
        "))",
        "${",
        "$(",
        "alias a=",
        "f() {",
        "\n}\n",
        "case x in ",
        " esac ",
        ";;",
        "[[ ",
        " ]]",
        "function ",
        "$'",
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join), st.booleans())
@settings(max_examples=600, deadline=None)
def test_never_raises_and_bodies_are_pieces_of_the_source(text: str, zsh: bool) -> None:
    parsed = parse(text, zsh=zsh)
    lines = text.count("\n") + 1
    assert all(each.body in text and 1 <= each.line <= lines for each in parsed.functions)
    assert all(1 <= line <= lines for line, _ in parsed.notes)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_value_in_single_quotes_comes_back(value: str) -> None:
    quoted = "'" + value.replace("'", "'\\''") + "'"
    parsed = parse(f"alias x={quoted}; alias y=2", zsh=False)
    assert [(each.name, each.command) for each in parsed.aliases] == [("x", value), ("y", "2")]


def scan(root: Path, *readers: str, environ: dict[str, str] | None = None) -> tuple[list[Found], list[Skipped]]:
    machine = Machine(root, Path("/home/ada"), "box", environ or {}, (), "linux")
    items = [item for _, item in read_all(machine, readers)]
    return [i for i in items if isinstance(i, Found)], [i for i in items if isinstance(i, Skipped)]


def put(root: Path, path: str, text: str) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def test_readers_follow_the_order_of_the_files(tmp_path: Path) -> None:
    put(tmp_path, "/etc/profile.d/a.sh", "alias ll='ls -l'\nshared() { :; }\n")
    put(tmp_path, "/etc/profile.d/not-a-script.txt", "alias no=1\n")
    put(tmp_path, "/home/ada/.bashrc", "alias ll='ls -la'\r\nalias gs='git status'\r\n")
    put(
        tmp_path,
        "/home/ada/z/.zshrc",
        "alias gs='git status -sb'\nalias -g L='| less'\nalias -s md=vim\nmk() { mkdir $1 }\n",
    )
    found, skipped = scan(tmp_path, "aliases", "functions", environ={"ZDOTDIR": "/home/ada/z"})
    assert {
        (f.kind, f.name): (f.classification, f.spec.get("command"), f.spec["file"], f.spec["line"]) for f in found
    } == {
        ("alias", "ll"): ("BashAlias", "ls -la", "/home/ada/.bashrc", 1),
        ("alias", "gs"): ("ZshAlias", "git status -sb", "/home/ada/z/.zshrc", 1),
        ("alias", "L"): ("ZshGlobalAlias", "| less", "/home/ada/z/.zshrc", 2),
        ("alias", ".md"): ("ZshSuffixAlias", "vim", "/home/ada/z/.zshrc", 3),
        ("function", "shared"): ("PosixFunction", None, "/etc/profile.d/a.sh", 2),
        ("function", "mk"): ("ZshFunction", None, "/home/ada/z/.zshrc", 4),
    }
    assert [(s.path, s.reason) for s in skipped] == [
        ("/etc/profile.d/a.sh:1", "alias 'll' is defined again at /home/ada/.bashrc:1"),
        ("/home/ada/.bashrc:2", "alias 'gs' is defined again at /home/ada/z/.zshrc:1"),
    ]


def test_a_secret_in_an_alias_is_neither_stored_nor_shown(tmp_path: Path) -> None:
    token = "ghp_" + "a1B2c3D4" * 5
    put(
        tmp_path, "/home/ada/.bashrc", f"alias up='curl -H {token}'\npush() {{ git push https://me:{token}@host/x; }}\n"
    )
    found, skipped = scan(tmp_path, "aliases", "functions")
    assert found == []
    assert len(skipped) == 2
    assert token not in repr(skipped)


def test_an_alias_or_function_with_a_password_is_skipped_with_the_reason(tmp_path: Path) -> None:
    lines = (
        "alias my='mysql -u root -pSECRET'",
        "alias t2='TOKEN=SECRET run'",
        "fetch() { curl -u me:SECRET https://x; }",
        'post() { curl -H "Authorization: Basic SECRET" https://x; }',
        "fine() { curl -u me:$TOKEN https://x; }",
    )
    put(tmp_path, "/home/ada/.bashrc", "\n".join(lines) + "\n")
    found, skipped = scan(tmp_path, "aliases", "functions")
    assert [f.name for f in found] == ["fine"]
    assert {s.reason for s in skipped} == {
        f"{word} seems to hold a secret" for word in ("alias 'my'", "alias 't2'", "function 'fetch'", "function 'post'")
    }
    assert "SECRET" not in repr(skipped)


def test_nothing_in_a_start_file_runs(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    put(
        tmp_path,
        "/home/ada/.zshrc",
        f"$(touch {trap})\neval 'touch {trap}'\nalias x=\"`touch {trap}`\"\nf() {{ touch {trap}; }}\nf\n",
    )
    found, _ = scan(tmp_path, "aliases", "functions")
    assert {f.name for f in found} == {"x", "f"}
    assert not trap.exists()


def test_a_body_over_64_kib_is_skipped_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path, "/home/ada/.bashrc", f"big() {{ : {'x' * 70_000}; }}\nsmall() {{ :; }}\n")
    found, skipped = scan(tmp_path, "functions")
    assert [f.name for f in found] == ["small"]
    assert re.search("more than 64 KiB", skipped[0].reason)
