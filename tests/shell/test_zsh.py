"""The zsh front in a real zsh: the seed's block, every option set, hostile values, no forks, nothing left."""

from __future__ import annotations

import re
import resource
import shutil
import statistics
from pathlib import Path

import pytest
from fronts import ROOT, Done, Home

SEED_BLOCK = r"""
# Source the integration
source universal_registry_integration.zsh
# Initialize with propagation
universal_registry_with_propagation_init
# Register entity
register_entity "myapp" "AppService" '{"type":"service","version":"1.0"}'
# Query entities
query_entities_by_classification "AppService"
# Start propagation
registry_propagation_unidirectional myapp "remote.service" "$payload"
"""
PAGE = (ROOT / "docs" / "how-to" / "zsh.md").read_text(encoding="utf-8")
PAGE_BLOCKS = re.findall(r"^```zsh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FUNCTIONS = ROOT / "universal_registry" / "shell" / "zsh" / "functions"
PUBLIC = sorted(each.name for each in FUNCTIONS.iterdir() if not each.name.startswith("_"))
ODD_OPTIONS = "setopt ksh_arrays sh_word_split no_unset err_return warn_create_global ksh_glob ksh_autoload\n"
HOSTILE = [
    "x; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "'\"\\",
    "two words",
    "*",
    "-rf",
    "🦊",
    "\u202eabc",
    "a%b&c+d=e",
]

pytestmark = pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")


def zsh(home: Home, script: str, **env: str) -> Done:
    source = f"source {ROOT}/universal_registry_integration.zsh\n"
    return home.run("zsh", "-f", "-c", source + script, env=env)


def test_the_block_of_the_guide_as_it_stands(home: Home) -> None:
    done = home.run("zsh", "-f", "-e", "-c", f"cd {ROOT}\n{SEED_BLOCK}")
    assert done.code == 0, done
    assert re.search(r"^myapp\tAppService\t\d+\t\d+\t\S+\t\{", done.out, re.MULTILINE)
    assert "remote.service" in home.ureg("session", "ls", "-o", "tsv").out


@pytest.mark.parametrize(
    "call", ["registry_load_aliases", "registry_load_functions", "registry_load_env_vars", "registry_list"]
)
def test_a_namespace_is_no_part_of_a_request(home: Home, call: str) -> None:
    """A line end in it would begin a second request on the socket."""
    namespace = "$'x/aliases HTTP/1.1\\r\\n\\r\\nDELETE /v1/default/aliases/gs'"
    home.ureg("set", "alias", "gs", "command=kept")
    done = zsh(home, f"{call} -n {namespace} {'alias' if call == 'registry_list' else ''}")
    assert done.code == 6, done
    assert home.ureg("get", "alias", "gs").code == 0


def test_the_page_for_users_runs_as_it_stands(home: Home) -> None:
    assert len(PAGE_BLOCKS) == 4
    options = "setopt interactive_comments err_exit\n"
    done = home.run("zsh", "-f", "-c", f"cd {ROOT}\n{options}{''.join(PAGE_BLOCKS)}")
    assert done.code == 0, done


def test_a_context_is_left_to_ureg(home: Home) -> None:
    done = zsh(home, "registry_list alias", REGISTRY_CONTEXT="nowhere")
    assert (done.code, done.out) == (3, "")
    assert "no context is called 'nowhere'" in done.err


def test_sourced_through_a_symlink_from_another_folder(home: Home, tmp_path: Path) -> None:
    link = tmp_path / "link.zsh"
    link.symlink_to(ROOT / "universal_registry_integration.zsh")
    done = home.run("zsh", "-f", "-c", f"cd /; source {link}; registry_put glyph g glyph=x")
    assert (done.code, done.out.split(",")[0]) == (0, "glyph/default/g created")


def test_no_option_of_the_user_has_an_effect_or_is_changed(home: Home) -> None:
    script = f"""{ODD_OPTIONS}
source {ROOT}/universal_registry_integration.zsh
main() {{
  local before="$(setopt)" value
  local -A fields
  local -a lines
  registry_put alias odd 'command=a  b *'
  registry_get -v value alias odd spec.command; print -r -- "<$value>"
  registry_get -A fields alias odd; print -r -- "<${{fields[spec.command]}}>"
  registry_list -v lines alias 'od?'; print ${{#lines[@]}}
  registry_load_aliases
  [[ "$(setopt)" == "$before" ]] && print same
}}
main
"""
    done = home.run("zsh", "-f", "-c", script)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1:] == ["<a  b *>", "<a  b *>", "1", "same"]


@pytest.mark.parametrize("value", [*HOSTILE, "a\nb\tc\n", "%%&&++%", "x" * 262_144])
def test_values_arrive_whole_and_are_never_run(home: Home, value: str) -> None:
    script = "v=$(cat; print -n x); v=${v%x}; registry_put alias hostile command=$v >/dev/null && "
    script += "registry_get -v back alias hostile spec.command && [[ $back == $v ]] && print -rn -- $back"
    done = home.run("zsh", "-f", "-c", f"source {ROOT}/universal_registry_integration.zsh\n{script}", stdin=value)
    assert done.code == 0, done.err
    assert done.out == value
    assert not (home.folder / "pwned").exists()


def test_a_value_beyond_the_limit_is_refused_in_one_line(home: Home) -> None:
    done = zsh(
        home, "registry_put alias huge command=${(l:1000000::x:)}; print $?; registry_get alias huge 2>/dev/null"
    )
    assert (done.code, done.out) == (3, "6\n")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_names_arrive_whole(home: Home, name: str) -> None:
    script = "n=$(cat); register_entity $n AppService '{}' >/dev/null && registry_get -A got service $n && "
    script += "print -r -- $got[name] && registry_delete service $n >/dev/null && registry_get service $n"
    done = home.run("zsh", "-f", "-c", f"source {ROOT}/universal_registry_integration.zsh\n{script}", stdin=name)
    assert (done.code, done.out) == (3, name + "\n"), done.err
    assert not (home.folder / "pwned").exists()


def test_a_parameter_that_would_run_data_is_refused(home: Home) -> None:
    script = "registry_put alias p 'command=1'; integer number; readonly fixed=1\n"
    for name in ("'a[$(touch pwned)]'", "number", "fixed", "path", "_ur_body"):
        script += f"registry_get -v {name} alias p spec.command; print $?\n"
    done = zsh(home, script)
    assert done.out.splitlines()[1:] == ["2"] * 5
    assert not (home.folder / "pwned").exists()


def test_aliases_functions_and_variables_come_and_go(home: Home) -> None:
    script = """
registry_put alias zz1 'command=print one' >/dev/null; registry_put function zz2 'body=print two $1' >/dev/null
registry_put env_var ZZ3 'value=$(touch pwned) three' >/dev/null
registry_put env_var SECONDS 'value=a[$(touch pwned)]' >/dev/null
registry_load_aliases; registry_load_functions; registry_load_env_vars
print -r -- $aliases[zz1]; zz2 x; print -r -- $ZZ3; printenv ZZ3
registry_delete alias zz1 >/dev/null; registry_delete function zz2 >/dev/null; registry_delete env_var ZZ3 >/dev/null
registry_load_aliases; registry_load_functions; registry_load_env_vars
print ${+aliases[zz1]} ${+functions[zz2]} ${+ZZ3}
"""
    done = zsh(home, script)
    three = "$(touch pwned) three"
    assert (done.out.splitlines(), done.err) == (["print one", "two x", three, three, "0 0 0"], "")
    assert not (home.folder / "pwned").exists()


def test_a_call_starts_no_program(home: Home) -> None:
    script = "registry_put alias quick command=x >/dev/null; PATH=; registry_get -v got alias quick spec.command"
    assert zsh(home, f"{script}; print $got") == Done(0, "x\n", "")


def test_a_call_costs_little_more_than_the_exchange_in_it(home: Home) -> None:
    """In processor time of this shell, since other tests take the clock's. A fork alone would double it."""
    assert home.ureg("set", "alias", "quick", "command=x").code == 0
    bare = f"""zmodload zsh/net/socket zsh/system
exchange() {{
  emulate -L zsh -o no_multibyte
  local REPLY chunk
  zsocket {home.socket}
  syswrite -o $REPLY -- $'GET /v1/default/alias/-?name=quick HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'
  sysread -i $REPLY chunk
  exec {{REPLY}}>&-
}}
"""
    source = f"source {ROOT}/universal_registry_integration.zsh\n"

    def milliseconds(begin: str, call: str) -> float:
        """Of a call; what a shell costs before the first is taken off."""
        spent = []
        for count in (1, 301):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert home.run("zsh", "-f", "-e", "-c", f"{begin}repeat {count}; do {call}; done") == Done(0, "", "")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
        return (spent[1] - spent[0]) / 300

    pairs = [
        (milliseconds(bare, "exchange"), milliseconds(source, "registry_get -v got alias quick")) for _ in range(3)
    ]
    exchange, call = (statistics.median(each) for each in zip(*pairs, strict=True))
    print(f"registry_get {call:.2f} ms, the exchange alone {exchange:.2f} ms")
    assert call < 12 * exchange


def test_unloading_leaves_nothing(home: Home) -> None:
    script = f"""
zmodload zsh/parameter
state() {{
  print -r -- "${{(ok)functions}}|$fpath|$(setopt)|${{(ok)parameters}}|$(zmodload)|${{(kv)aliases}}"
}}
before= after=; before=$(state)
source {ROOT}/universal_registry_integration.zsh
registry_put alias left command=x >/dev/null; registry_load_aliases; registry_get alias left >/dev/null
universal-registry_plugin_unload
after=$(state); [[ $after == $before ]] && print clean || print -rl -- $before $after
"""
    assert home.run("zsh", "-f", "-c", script).out == "clean\n"


def test_without_a_daemon_ureg_does_the_same_and_it_is_said_once(home: Home, tmp_path: Path) -> None:
    other = {"REGISTRY_HOME": str(tmp_path / "alone")}
    assert home.run("zsh", "-f", "-c", f"source {ROOT}/universal_registry_integration.zsh; universal_registry_init",
                    env=other).code == 0  # fmt: skip
    script = "registry_put alias gs $'command=a\\nb'; registry_get -v v alias gs spec.command; print -r -- ${(q)v}"
    script += "; registry_get alias no"
    done = zsh(home, script, **other)
    assert (done.code, done.out.splitlines()[1]) == (3, "a$'\\n'b")
    assert done.err.count("no daemon runs") == 1


def test_nothing_to_ask_and_nothing_to_run_is_7(home: Home, tmp_path: Path) -> None:
    shutil.copytree(FUNCTIONS.parent, tmp_path / "a" / "b" / "zsh")
    script = f"source {tmp_path}/a/b/zsh/universal-registry.plugin.zsh; PATH=; registry_get alias gs"
    done = home.run("zsh", "-f", "-c", script, env={"REGISTRY_HOME": str(tmp_path / "none")})
    assert done.code == 7
    assert "there is no ureg" in done.err


TERMINAL = """
zmodload zsh/zpty
zpty -b shell "PS1='> ' zsh -f -i"
expect() {
  local line; integer deadline=$(( SECONDS + 20 ))
  all=
  while (( SECONDS < deadline )); do
    zpty -r shell line && all+=$line
    [[ $all == *$1* ]] && return 0
  done
  print -r -- $all; return 1
}
"""
"""A zsh at a terminal, and a function that waits until it shows something: `all` is what it has shown."""


def test_names_are_completed_in_a_terminal(home: Home) -> None:
    script = f"""{TERMINAL}
zpty -w shell 'autoload -Uz compinit; compinit -u -D'
zpty -w shell "source {ROOT}/universal_registry_integration.zsh; print REA''DY"
expect READY && zpty -n -w shell $'registry_get glyph completed-na\t'
expect 'completed-name-of-a-glyph' && print completed
zpty -d shell
"""
    assert home.ureg("set", "glyph", "completed-name-of-a-glyph", "glyph=x").code == 0
    assert home.run("zsh", "-f", "-c", script).out == "completed\n"


@pytest.mark.parametrize(
    ("before", "block", "shown"),
    [
        (":", SEED_BLOCK, ["created, revision", "myapp\tAppService", "remote.service has no address yet"]),
        ("setopt interactive_comments", PAGE_BLOCKS[0] + PAGE_BLOCKS[1], ["myapp\tAppService", "service/default/pay"]),
    ],
    ids=["of the guide", "of our page"],
)
def test_a_block_is_pasted_into_a_terminal(home: Home, before: str, block: str, shown: list[str]) -> None:
    """Which takes `#` for a word and `!` for a line of its history, unless it is told otherwise."""
    script = f"""{TERMINAL}
zpty -w shell 'cd {ROOT}; {before}'
zpty -w shell "$(cat)"
zpty -w shell "print EN''D"
expect END && print -r -- $all
zpty -d shell
"""
    home.ureg("delete", "service", "myapp")
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", home.run("zsh", "-f", "-c", script, stdin=block).out)
    assert [each for each in shown if each not in seen] == [], seen
    assert home.ureg("get", "service", "myapp").code == 0


def test_no_remark_of_our_pages_opens_a_quote_or_recalls_a_line() -> None:
    """Pasted into an interactive zsh that takes `#` for a word, it would swallow the lines behind it."""
    found = []
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:sh|zsh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            remarks = re.findall(r"(?:^|\s)#\s.*$", block, re.MULTILINE)
            found += [(page.name, each) for each in remarks if re.search(r"['!]", each) or each.count('"') % 2]
    assert found == []


def test_each_function_is_in_the_reference_and_each_there_is_one() -> None:
    page = (ROOT / "docs" / "reference" / "zsh.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `([\w-]+)", page, re.MULTILINE)) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_function_begins_with_its_contract_and_its_own_options(name: str) -> None:
    lines = (FUNCTIONS / name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert next(line for line in lines if not line.startswith("#")).startswith("emulate -L zsh")
