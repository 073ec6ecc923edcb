"""search, graph, impact and top, as people run them: with a daemon and without."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from typing import Any

import pytest

from tests.system.cli.conftest import UREG

ENGINES = pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
CANARY = "hunter2-canary"
HOSTILE = 'a"\\\u202e -> b'


def _filled(ureg: Any) -> None:
    documents = [
        {"kind": "host", "name": "h5", "title": "The Big One", "labels": {"tier": "backend"}, "spec": {}},
        {"kind": "service", "name": "pay", "spec": {"host": "h5", "port": 8443, "depends_on": ["pay-db", "gone"]}},
        {"kind": "datastore", "name": "pay-db", "spec": {"host": "h5"}},
        {"kind": "service", "name": "far", "namespace": "edge", "spec": {"host": "h5"}},
        {"kind": "service", "name": HOSTILE, "spec": {"host": "e\u0301"}},
        {"kind": "host", "name": "\u00e9", "spec": {}},
        {"kind": "secret", "name": "db", "spec": {"value": CANARY}},
    ]
    ureg("apply", "-f", "-", stdin="\n".join(map(json.dumps, documents)))


@ENGINES
@pytest.mark.usefixtures("bare")
def test_search(ureg: Any) -> None:
    _filled(ureg)

    def names(*words: str) -> list[str]:
        return ureg("search", "-o", "name", *words).stdout.splitlines()

    assert names("BIG") == ["host/h5"]
    assert names("tier=back") == ["host/h5"]
    assert names("8443", "pay") == ["service/pay"]
    assert names("pay", "--kind", "datastores") == ["datastore/pay-db"]
    assert names("h5", "-n", "edge") == ["service/far"]
    assert names("E\u0301", "--kind", "service") == [f"service/{HOSTILE}"], "composed or not, in capitals or not"
    assert names("--", '"\\') == [f"service/{HOSTILE}"]
    assert names("pay", "nowhere") == []
    assert ureg.json("search", "big")[0]["title"] == "The Big One"
    assert "spec.host" in ureg("search", "h5", "--kind", "service").stdout
    assert "\u202e" not in ureg("search", "h5", "e\u0301").stdout + ureg("search", " -> ").stdout


def test_a_search_never_finds_a_secret_nor_what_stands_for_it(ureg: Any) -> None:
    _filled(ureg)
    for word in (CANARY, "hunter2", "kept", "$secret", "sealed"):
        done = ureg("search", word)
        assert (done.stdout, done.stderr) == ("", "no records hold all of that\n")
    (found,) = ureg.json("search", "db", "--kind", "secret")
    assert found["spec"] == {"value": {"$secret": "kept"}}


def test_bad_words_for_a_search(ureg: Any) -> None:
    ureg("search", code=2)
    assert "empty" in ureg("search", "a", "", code=2).stderr
    assert "did you mean 'host'" in ureg("search", "a", "--kind", "hots", code=3).stderr
    assert ureg("search", b"\xff").stdout == ""


@ENGINES
@pytest.mark.usefixtures("bare")
def test_graph(ureg: Any) -> None:
    assert "no record refers" in ureg("graph").stderr
    _filled(ureg)
    text = ureg("graph").stdout
    assert (
        "service/default/pay\n"
        "  depends_on -> datastore/default/pay-db\n"
        "  depends_on -> service/default/gone (missing)\n"
        "  host -> host/default/h5\n"
    ) in text
    assert "service/edge/far\n  host -> host/default/h5\n" in text
    assert "  host -> host/default/\u00e9\n" in text, "a name is stored composed"
    assert "\u202e" not in text
    around = ureg.json("graph", "datastore/pay-db")["references"]
    assert [(each["from"]["name"], each["field"], each["to"]["name"]) for each in around] == [
        ("pay-db", "host", "h5"),
        ("pay", "depends_on", "pay-db"),
    ]
    assert [each["there"] for each in ureg.json("graph", "service", "pay")["references"]] == [True, False, True]
    assert len(ureg.json("graph", "-n", "edge")["references"]) == 1
    assert "nothing refers to it" in ureg("graph", "secret", "db").stderr


def test_a_graph_for_graphviz_holds_any_name(offline: Any) -> None:
    _filled(offline)
    lines = offline("graph", "-o", "dot").stdout.splitlines()
    assert (lines[0], lines[-1]) == ("digraph registry {", "}")
    (hostile,) = [line for line in lines if 'a\\"' in line]
    assert hostile.startswith('  "service/default/a\\"\\\\')
    assert hostile.endswith(' -> b" -> "host/default/\u00e9" [label="host"];')
    assert '  "service/default/gone" [style=dashed];' in lines
    assert '  "host/default/h5" [style=bold];' in offline("graph", "host", "h5", "-o", "dot").stdout.splitlines()


def test_bad_words_for_a_graph_and_an_impact(ureg: Any) -> None:
    for verb in ("graph", "impact"):
        assert "KIND NAME" in ureg(verb, "host", code=2).stderr
        assert "no host 'nobody'" in ureg(verb, "host", "nobody", code=3).stderr
        assert "did you mean 'host" in ureg(verb, "hots", "h5", code=3).stderr
        ureg(verb, "host", "h5", "-o", "csv", code=2)


@ENGINES
@pytest.mark.usefixtures("bare")
def test_impact(ureg: Any) -> None:
    _filled(ureg)
    ureg("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=host")
    ureg("target", "add", "other", "http://127.0.0.1:9", "--select", "kind=alias")
    assert ureg("impact", "host", "h5").stdout.splitlines() == [
        "host/default/h5: a change goes to 1 target; 3 references to it",
        "  -> mine by route mine",
        "  <- datastore/default/pay-db by host",
        "  <- service/default/pay by host",
        "  <- service/edge/far by host",
    ]
    found = ureg.json("impact", f"service/{HOSTILE}")
    assert (found["record"]["name"], found["targets"], found["referring"]) == (HOSTILE, [], [])
    assert ureg("impact", "host", "h5", "--query", "targets[].target | [0]").stdout.strip().strip('"') == "system/mine"


@ENGINES
@pytest.mark.usefixtures("bare")
def test_top_off_a_terminal_is_one_look(ureg: Any) -> None:
    ureg("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias")
    ureg("set", "alias", "gs", "command=x")
    for words in (["top"], ["top", "--once"]):
        lines = ureg(*words).stdout.splitlines()
        assert lines[1].startswith("revision 2   delivered 0   retried ")
        assert lines[-2].split()[:5] == ["TARGET", "STATE", "BREAKER", "QUEUED", "UNREAD"]
        assert lines[-1].split()[:3] == ["mine", "ready", "closed"]
        assert "\x1b" not in "".join(lines)
    ureg("top", "--every", "0", code=2)
    ureg("top", "x", code=2)


def test_top_says_whether_a_daemon_runs(online: Any) -> None:
    assert "no daemon" not in online("top").stdout
    online("down")
    assert "no daemon runs (ureg up)" in online("top").stdout


def _read_until(main: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        shown += os.read(main, 65536)
    return shown


@pytest.mark.parametrize("ending", ["q", "SIGINT", "SIGTERM"])
def test_top_on_a_terminal_redraws_and_leaves_it_as_it_was(online: Any, ending: str) -> None:
    online("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias")
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    before = termios.tcgetattr(side)
    with subprocess.Popen(
        [*UREG, "top", "--every", "0.5"],
        env=online.environ,
        stdin=side,
        stdout=side,
        stderr=side,
    ) as process:
        shown = _read_until(main, b"/s)")  # the second look has rates
        assert b"mine" in shown
        if ending == "q":
            os.write(main, b"q")
        else:
            process.send_signal(signal.Signals[ending])
        _read_until(main, b"\x1b[?1049l")
        assert process.wait(30) == 0
    assert termios.tcgetattr(side) == before
    os.close(side)
    os.close(main)
