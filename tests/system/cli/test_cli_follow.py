"""Watches that go on where they were: a named consumer's, and those of a registry elsewhere."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

PATIENCE = 60


def told_until(process: subprocess.Popen[str], name: str) -> list[tuple[str, str]]:
    """What is told, as (op, name), up to a record of that name."""
    assert process.stdout is not None
    found: list[tuple[str, str]] = []
    while not found or found[-1][1] != name:
        frame = json.loads(process.stdout.readline())
        found += [("record", each["name"]) for each in frame.get("records", ())]
        found += [(each["op"], each["name"]) for each in frame.get("events", ())]
    return found


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    return process.returncode


def test_a_consumer_is_told_what_it_has_not_acknowledged(online: Any) -> None:
    online("consumer", "add", "audit", "--select", "kind=alias")
    online("set", "service", "pay", "port=1")
    online("set", "alias", "a", "command=x")
    told = online.start("get", "-w", "--consumer", "audit", "-o", "ndjson")
    assert told_until(told, "a") == [("put", "a")]
    online("set", "alias", "b", "command=x")
    assert told_until(told, "b") == [("put", "b")]
    assert ended(told, signal.SIGINT) == 0
    assert online.json("consumer", "get", "audit")["lag"] == 0
    online("set", "alias", "c", "command=x")
    told = online.start("get", "-w", "--consumer", "audit", "-o", "ndjson")
    assert told_until(told, "c") == [("put", "c")]
    assert ended(told, signal.SIGKILL) == -signal.SIGKILL
    told = online.start("get", "-w", "--consumer", "audit", "--from", "beginning", "-o", "ndjson")
    assert told_until(told, "c") == [("put", "a"), ("put", "b"), ("put", "c")]
    assert ended(told) == 0


def test_what_a_consumer_cannot_be_asked_is_said(online: Any) -> None:
    online("consumer", "add", "audit")
    for words in (
        ("--consumer", "audit"),
        ("alias", "-w", "--consumer", "audit"),
        ("-w", "--consumer", "audit", "-l", "x"),
        ("-w", "--consumer", "audit", "-n", "default"),
        ("-w", "--consumer", "audit", "--rev", "1"),
        ("-w", "--consumer", "audit", "--query", "name"),
        ("-w", "--consumer", "audit", "-o", "yaml"),
        ("-w", "--consumer", ""),
        ("-w",),
        (),
    ):
        online("get", *words, code=2)
    assert "did you mean 'audit'" in online("get", "-w", "--consumer", "audti", code=3).stderr
    online("get", "-w", "--consumer", "audit", "--from", "nonsense", code=6)
    for name in ("../x", "a b", "\x1b[31m", "x" * 5000, "\U0001f980"):
        online("get", "-w", "--consumer", name, code=3)


def test_another_registry_is_followed_from_where_it_was_left(online: Any) -> None:
    address = (online.home / "run" / "address").read_text().splitlines()[1]
    token = str(online.home / "config" / "admin.token")
    words = ("follow", f"http://{address}", "kind=alias", "--token-file", token, "--state", "place", "-o", "ndjson")
    online("set", "alias", "a", "command=x")
    told = online.start(*words)
    assert told_until(told, "a") == [("record", "a")]
    online("set", "alias", "b", "command=x")
    assert told_until(told, "b") == [("put", "b")]
    assert ended(told, signal.SIGINT) == 0
    online("set", "service", "pay", "port=1")
    online("delete", "alias", "a")
    online("set", "alias", "c", "command=x")
    told = online.start(*words)
    assert told_until(told, "c") == [("delete", "a"), ("put", "c")]
    online("down")
    online("up", "--listen", address)
    online("set", "alias", "d", "command=x")
    assert told_until(told, "d") == [("put", "d")]
    assert ended(told) == 0
    assert "of other selectors" in online("follow", f"http://{address}", "--state", "place", code=5).stderr
    told = online.start(*words, "--from", "list")
    assert told_until(told, "d") == [("record", "b"), ("record", "c"), ("record", "d")]
    assert ended(told) == 0


def test_what_cannot_be_followed_is_said_in_one_line(online: Any) -> None:
    address = (online.home / "run" / "address").read_text().splitlines()[1]
    url, token = f"http://{address}", str(online.home / "config" / "admin.token")
    online("context", "add", "here", str(online.home))
    online("context", "add", "there", url, "--token-file", token)
    for text in ("", "{", "[]", '{"cursor": 1}', '{"registry": 1, "select": 2, "cursor": "x"}', "\x00"):
        Path(online.folder / "place").write_text(text)
        done = online.run(("follow", "there", "--state", "place"), b"", {})
        assert done.returncode in (5, 6), text
        assert done.stderr.startswith("ureg: place "), done
    for words, code in {
        ("follow", "here"): 2,
        ("follow", "nowhere"): 3,
        ("follow", "there", "--token-file", token): 2,
        ("follow", "there", "kind=nokind"): 3,
        ("get", "nokind", "-w"): 3,
        ("stream", "tail", "kind=nokind"): 3,
        ("follow", "there", "--from", "nonsense"): 6,
        ("follow", "there", "--state", str(online.folder)): 2,
        ("follow", "there", "--state", "nofolder/place"): 3,
        ("follow", "there", "-o", "yaml"): 2,
        ("follow", url): 4,
        ("follow", "http://registry.example"): 2,
        ("follow", "ftp://127.0.0.1"): 2,
        ("follow", "https://user@127.0.0.1:99999"): 2,
        ("follow", "$(touch pwned)://x"): 2,
        ("follow", ""): 3,
        ("follow",): 2,
    }.items():
        assert online(*words, code=code).stderr.startswith("ureg: "), words
    assert not list(online.folder.rglob("pwned"))
