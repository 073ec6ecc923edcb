"""registry_cli.sh beside a daemon: in every shell the words, records and exit codes of `ureg`, without a Python."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import statistics
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fronts import SCRIPT, SHELLS, UREG, Home, shell_command, steady

NO_PYTHON = {"REGISTRY_PYTHON": "/no/python/here"}
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
HOSTILE = [
    "x; touch pwned", "$(touch pwned)", "`touch pwned`", "\U0001f98a" * 20, "two words", "*", "'\"\\", "%s%n",
    "a&b=c%20+d", "~", "\\t", "\u202eabc", "@scope/pkg", "..", ".", "-", "g++", "10.0.0.0/8", "a=b", "?x=1#y",
]  # fmt: skip


@pytest.fixture(params=SHELLS, scope="module")
def shell(request: pytest.FixtureRequest) -> list[str]:
    found = shell_command(request.param)
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    return found


def test_records_of_every_name_and_value(home: Home, shell: list[str]) -> None:
    for name in HOSTILE:
        made = home.sh(shell, "set", "alias", name, f"command=:{name}", "labels.a=b", **NO_PYTHON)
        assert (made.code, made.err) == (0, ""), (name, made)
        found = home.sh(shell, "get", "alias", name, **NO_PYTHON)
        assert found.code == 0
        assert found.out.count("\n") == 1
        assert found.out.split("\t")[5].count("command") == 1
    names = {
        each["name"]: each["spec"]["command"] for each in home.http("GET", "/v1/default/aliases?limit=1000")[1]["items"]
    }
    assert {name: names[name] for name in HOSTILE} == {name: f":{name}" for name in HOSTILE}
    assert not list(home.folder.rglob("pwned"))


def test_a_name_that_is_not_utf_8_is_refused_as_such(home: Home, shell: list[str]) -> None:
    if "yash" in shell[0]:
        pytest.skip("yash itself refuses arguments that are no text")
    told = home.sh(shell, "set", "alias", "bad\udcff", "command=x", **NO_PYTHON)
    assert told.code == 6, told
    assert "not UTF-8" in told.err


def test_a_value_is_kept_to_the_byte(home: Home, shell: list[str]) -> None:
    for value in (*(each for each in HOSTILE if each != "-" and each[0] != "@"), "a\nb\n\n", "\n", "null", "{}", "1"):
        assert home.sh(shell, "set", "alias", "byte", f"command={value}", **NO_PYTHON).code == 0
        assert home.http("GET", "/v1/default/aliases/byte")[1]["spec"] == {"command": value}


PLAIN = [
    (["unidirectional", "--source", "myservice", "--target", "remote.service"], ""),
    (["unidirectional", "myservice", "remote.service"], ""),
    (["unidirectional", "myservice", "remote.service", '{"a": "it\'s"}'], ""),
    (["unidirectional", "--source=myservice", "remote.service", "plain & text %"], ""),
    (["unidirectional", "myservice", "remote.service", "-"], '{"big": [1, 2]}'),
    (["bidirectional", "--source", "service1", "--target", "service2"], ""),
    (["multicast", "--source", "hub", "--targets", "s1, s2,s3"], ""),
    (["multicast", "hub", "s1", "s2", "[1, 2]"], ""),
    (["fanout", "hub", "s1", "s2"], ""),
    (["chain", "hub", "s1", "s2", "--on-failure", "skip"], ""),
    (["broadcast", "--source", "publisher", "--exclude", "internal"], ""),
    (["broadcast", "publisher", '"x"'], ""),
    (["set", "service", "pay", "port=8443", "version=1.0", "depends_on=a,b"], ""),
    (["set", "service", "pay", "port=x"], ""),
    (["set", "sevrice", "pay", "port=1"], ""),
    (["unidirectional", "sevrice/x", "t", "--strict"], ""),
]


@pytest.mark.parametrize(
    ("words", "stdin"), PLAIN, ids=lambda each: " ".join(each)[:50] if isinstance(each, list) else ""
)
def test_a_plain_call_says_what_ureg_says_and_starts_no_python(
    home: Home, shell: list[str], words: list[str], stdin: str
) -> None:
    by_ureg = home.ureg(*words, stdin=stdin)  # first: what it makes is there for both that follow
    again, by_shell = home.ureg(*words, stdin=stdin), home.sh(shell, *words, stdin=stdin, **NO_PYTHON)
    assert by_ureg.code == by_shell.code == again.code
    assert (steady(by_shell.out), steady(by_shell.err)) == (steady(again.out), steady(again.err))


OTHERS = [
    ["unidirectional", "myservice"],
    ["unidirectional", "a", "b", "c", "http", "e"],
    ["unidirectional", "myservice", "remote.service", ""],
    ["unidirectional", "myservice", "remote.service", "@/no/such/file"],
    ["unidirectional", "myservice", "remote.service", "{no json"],
    ["multicast", "hub", "s1", "s2"],
    ["multicast", "hub", "s1", "s2", "{no json"],
    ["fanout", "hub", "s1", "[1]"],
    ["bidirectional", "a", "b", "--data", "{}"],
    ["unidirectional", "myservice", "remote.service", "--dry-run"],
    ["unidirectional", "--sorce", "x"],
    ["set", "alias", "x", "nothing"],
    ["get", "alias", "nothing", "-o", "name"],
    ["get", "alias", "nothing"],
    ["get", "sevrice", "-o", "tsv"],
    ["status", "--wath"],
    ["status", "--help"],
    ["restart", "--listen", "nonsense"],
    ["restart", "--help"],
    ["stop", "--help"],
    ["logs", "--lines", "none"],
    ["target", "remove", "nothing"],
    ["bidirectional", "a", "b", "{}", "file"],
    ["session", "get", "nothing"],
    ["delivery", "get", "nothing"],
    ["webhook", "ls", "--nothing"],
    ["run", "--env", "nothing", "--", "true"],
    ["studio", "install", "nothing"],
    ["follow", "nonsense"],
    ["nothing"],
]


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_what_is_not_plain_is_said_by_ureg(home: Home, words: list[str]) -> None:
    shell = shell_command("dash") or ["sh"]
    by_ureg = home.ureg(*({"stop": "down"}.get(word, word) for word in words))
    by_shell = home.sh(shell, *words)
    assert by_ureg.code == by_shell.code
    assert (steady(by_shell.out), steady(by_shell.err)) == (steady(by_ureg.out), steady(by_ureg.err))


def test_data_from_files_and_large_data(home: Home, shell: list[str], tmp_path: Path) -> None:
    file = tmp_path / "data & more.json"
    file.write_text(json.dumps({"n": ["it's \U0001f98a & %"] * 20_000}, ensure_ascii=False))
    assert home.sh(shell, "unidirectional", "big one", "two  words *", f"@{file}").code == 0
    assert home.last_line()["audience"] == ["system/two  words *"]
    assert len(home.last_line()["payload"]["n"]) == 20_000
    file.write_text("x" * (1 << 20))
    by_shell = home.sh(shell, "unidirectional", "big", "t", f"@{file}")
    by_ureg = home.ureg("unidirectional", "big", "t", f"@{file}")
    assert by_shell == by_ureg
    assert by_shell.code == 6


def test_streams(home: Home, shell: list[str]) -> None:
    assert home.sh(shell, "enable-stream", "room", "websocket").code == 0
    assert home.sh(shell, "stream", "send", "hall", "1").code == home.ureg("stream", "send", "hall", "1").code == 3
    for data, kept in (("plain words", "plain words"), ('{"a": 1}', {"a": 1}), ("-", {"from": "stdin"})):
        sent = home.sh(shell, "stream", "send", "room", data, stdin='{"from": "stdin"}', **NO_PYTHON)
        assert sent.out.startswith("sent to room at revision "), sent
        assert home.last_line()["payload"] == kept


def test_values_stand_in_no_program_s_arguments(home: Home, shell: list[str], tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    recorder = tools / "curl"
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{tmp_path}/args"\nexec {shutil.which("curl")} "$@"\n')
    recorder.chmod(0o755)
    path = f"{tools}:{home.environ['PATH']}"
    done = home.sh(shell, "set", "env_var", "PAY", "secret_value=hush-hush", PATH=path, **NO_PYTHON)
    assert done.code == 0, done
    home.sh(shell, "unidirectional", "a", "b", '{"token": "hush-hush"}', PATH=path, **NO_PYTHON)
    home.sh(shell, "unidirectional", "a", "b", "hush-hush", PATH=path, **NO_PYTHON)
    said = (tmp_path / "args").read_text()
    assert said.count("--unix-socket") >= 3
    assert "hush" not in said


def test_without_curl_or_with_a_daemon_that_is_gone_ureg_does_it(home: Home, shell: list[str], tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "readlink", "cat", "env", "printf", "sed", "od", "tr"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    assert home.sh(shell, "set", "alias", "slow", "command=x", PATH=str(tools)).out.startswith("alias/default/slow ")
    gone = Home(tmp_path)
    assert gone.ureg("init").code == 0
    assert gone.ureg("up").code == 0
    address = (gone.home / "run" / "address").read_text()
    assert gone.ureg("down").code == 0
    (gone.home / "run" / "address").write_text(address)
    done = gone.sh(shell, "set", "alias", "gs", "command=x")
    assert (done.code, done.out) == (0, "alias/default/gs created, revision 1\n")


LISTS = [
    (["targets"], ["target", "ls"]),
    (["sessions"], ["session", "ls"]),
    (["deliveries"], ["delivery", "ls"]),
    (["events"], ["delivery", "ls"]),
    (["get", "service"], ["get", "service"]),
    (["get", "widget"], ["get", "widget"]),
    (["events", "nothing"], ["delivery", "ls", "--session", "nothing"]),
    (["get", "service", "elsewhere"], ["get", "service", "elsewhere"]),
]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A registry with a few of each thing."""
    made = Home(tmp_path_factory.mktemp("few"))
    for words in (
        ("init",), ("up",), ("target", "add", "one", "http://127.0.0.1:9"),
        ("set", "service", "here", "description=tab\tand \u202e"), ("set", "-n", "other", "service", "elsewhere"),
        ("multicast", "here", "one", "unnamed", '{"n": 1}'), ("unidirectional", "here", "one"),
    ):  # fmt: skip
        assert made.ureg(*words).code == 0
    yield made
    assert made.ureg("down").code == 0


@pytest.mark.parametrize(("words", "by_ureg"), LISTS, ids=" ".join)
def test_a_list_is_that_of_ureg_and_starts_no_python(
    few: Home, shell: list[str], words: list[str], by_ureg: list[str]
) -> None:
    env = {} if "elsewhere" in words else NO_PYTHON
    shown, wanted = few.sh(shell, *words, **env), few.ureg(*by_ureg, "-o", "tsv")
    assert (shown.code, untimed(shown.out), shown.err) == (wanted.code, untimed(wanted.out), wanted.err)
    assert bool(shown.out) == (words[-1] not in ("widget", "nothing"))


def test_a_kind_that_there_is_not_is_told_by_ureg(few: Home) -> None:
    assert few.sh(shell_command("dash") or ["sh"], "get", "sevrice") == few.ureg("get", "sevrice", "-o", "tsv")


def test_a_list_with_more_than_is_shown_is_told_by_ureg(few: Home) -> None:
    shell = shell_command("dash") or ["sh"]
    document = '{"kind": "setting", "name": "t%d", "spec": {"value": "1"}}\n'
    documents = "".join(document % number for number in range(1001))
    assert few.ureg("apply", "-f", "-", stdin=documents).code == 0
    assert few.sh(shell, "get", "setting").out.count("\n") == 1001
    assert few.sh(shell, "get", "setting", **NO_PYTHON).code == 2, "it asks ureg to turn the page"


def untimed(text: str) -> str:
    """Without what goes on by itself: states, attempts, and times to come."""
    return re.sub(r"\b(pending|sending|waiting)\b|\b\d{4}-\d\d-\d\dT[\d:.]+Z|\t\d+\t", "\t", text)


def test_lists_are_lines_with_tabs(home: Home, shell: list[str]) -> None:
    home.ureg("unidirectional", "listed", "somewhere", "1")
    for words in (["targets"], ["sessions"], ["deliveries"], ["events"], ["get", "alias"]):
        found = home.sh(shell, *words)
        assert found.code == 0
        assert found.out
        assert len({line.count("\t") for line in found.out.splitlines()}) == 1
    session = home.sh(shell, "sessions").out.splitlines()[-1].split("\t")[0]
    assert home.sh(shell, "events", session).code == 0
    assert home.sh(shell, "metrics", **NO_PYTHON).out.startswith("# HELP")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A registry in which nothing goes on by itself: its target is paused."""
    made = Home(tmp_path_factory.mktemp("quiet"))
    for words in (
        ("init",), ("up",), ("target", "add", "one", "http://127.0.0.1:9"), ("target", "pause", "one"),
        ("unidirectional", "alias/gs", "one"), ("set", "alias", "gs", "command=ls"),
    ):  # fmt: skip
        assert made.ureg(*words).code == 0
    yield made
    assert made.ureg("down").code == 0


def test_the_status_is_that_of_ureg_and_starts_no_python(quiet: Home, shell: list[str]) -> None:
    wanted = quiet.ureg("status")
    assert "\nTARGET " in wanted.out
    assert quiet.sh(shell, "status", **NO_PYTHON) == wanted


@pytest.mark.parametrize("columns", [40, 80, 250])
def test_on_a_terminal_the_status_is_as_wide_as_that(quiet: Home, columns: int) -> None:
    shell = shell_command("dash") or ["sh"]
    front = on_a_terminal(quiet, columns, [*shell, str(SCRIPT), "status"], NO_PYTHON)
    assert front == on_a_terminal(quiet, columns, [*UREG, "status"], {})
    assert ("REASON" in front) == (columns > 40)


def on_a_terminal(home: Home, columns: int, words: list[str], env: dict[str, str]) -> str:
    """What a command writes to a terminal that is so wide."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    done = subprocess.run(words, env=home.environ | env, stdout=theirs, stderr=theirs, timeout=60, check=False)
    assert done.returncode == 0
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        said = b""
        with suppress(OSError):  # how Linux says that nobody writes to it any more
            while piece := terminal.read(65536):
                said += piece
    return said.decode()


@pytest.mark.parametrize("place", ["{home}/", "{home}/../home", "home", "{linked}", "{odd}"])
def test_a_home_by_any_name_has_the_status_that_ureg_tells(quiet: Home, place: str) -> None:
    links = {"linked": quiet.folder / "linked", "odd": quiet.folder / "od d\t\u202e"}
    for link in links.values():
        if not link.is_symlink():
            link.symlink_to(quiet.home)
    home = place.format(home=quiet.home, **links)
    shell = shell_command("dash") or ["sh"]
    assert quiet.sh(shell, "status", REGISTRY_HOME=home) == quiet.ureg("status", REGISTRY_HOME=home)


def test_a_call_costs_little_more_than_the_curl_in_it(few: Home) -> None:
    """In processor time, since other tests take the clock's. A second curl, or a Python, would double it."""
    shell = shell_command("dash") or ["sh"]
    bare = f"curl -q -s --unix-socket '{few.socket}' http://localhost/health/live"

    def milliseconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert few.run(*shell, *words, env=NO_PYTHON).code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    for call in ("get service here", "targets", "status", "unidirectional here one", "set alias a command=x"):
        pairs = [(milliseconds("-c", bare), milliseconds(str(SCRIPT), *call.split())) for _ in range(15)]
        curl, front = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"{call}: {front:.1f} ms, curl alone {curl:.1f} ms")
        assert front < 1.7 * curl
