"""`ureg listen --exec`: a process for each event, which decides whether the event has arrived."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.cli.conftest import PATIENCE, Listener

TELLS = """
import json, os, sys
said = {name: value for name, value in os.environ.items() if name.startswith("UREG_EVENT_")}
print(json.dumps({"words": sys.argv[1:], "said": said, "data": json.loads(sys.stdin.read() or "null")}), flush=True)
"""
FAILS_ONCE = """
import pathlib, sys
runs = pathlib.Path(sys.argv[1])
with runs.open("a") as file:
    file.write("run\\n")
sys.exit(3 if len(runs.read_text().split()) == 1 else 0)
"""
HANGS = """
import os, signal, sys
print(os.getpid(), flush=True)
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pause()
"""


class Running(Listener):
    """With --exec: standard output is the command's, events are told on standard error."""

    def end(self, number: int = signal.SIGINT) -> tuple[list[str], list[str]]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return out.splitlines(), err.splitlines()

    def said(self) -> str:
        """The next line of the command."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            assert selector.select(PATIENCE)
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def run(bare: Any) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(program: str, *words: str, more: tuple[str, ...] = ()) -> Running:
        script = bare.write("on-event.py", program)
        command = f"{sys.executable} {script} {' '.join(words)}"
        started.append(Running(bare.start("listen", ":0", *more, "--exec", command)))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def test_the_command_gets_the_event_and_no_shell_reads_it(online: Any, run: Any, wait_for: Any) -> None:
    receiver = run(TELLS, "'$(touch pwned)'", "';'", more=("-o", "ndjson"))
    online("target", "add", "mine", receiver.url, "--network", "loopback", "--select", "kind=alias")
    hostile = "$(touch pwned) `touch pwned` \"'\n; touch pwned"
    online("set", "alias", "a;b", "command=-", stdin=hostile)
    got = json.loads(receiver.said())
    assert got["words"] == ["$(touch pwned)", ";"]
    assert got["data"]["record"]["spec"]["command"] == hostile
    said = got["said"]
    assert said["UREG_EVENT_SUBJECT"] == "alias/default/a;b"
    assert said["UREG_EVENT_TYPE"] == "registry.alias.created.v1"
    assert (said["UREG_EVENT_VERIFIED"], said["UREG_EVENT_LATE"]) == ("unchecked", "no")
    assert said["UREG_EVENT_ID"].startswith("dlv_")
    assert int(said["UREG_EVENT_SEQUENCE"].partition(".")[0]) > 0
    assert wait_for(lambda: online.json("where", "a;b")[0]["state"] == "arrived")
    out, err = receiver.end()
    assert out == []
    assert [json.loads(line)["state"] for line in err[:-1]] == ["received"]
    assert not (online.folder / "pwned").exists()


def test_what_the_command_refuses_comes_again(online: Any, run: Any, wait_for: Any) -> None:
    receiver = run(FAILS_ONCE, "runs.txt")
    online("target", "add", "mine", receiver.url, "--network", "loopback", "--select", "kind=alias")
    online("set", "alias", "gs", "command=x")
    assert wait_for(lambda: online.json("where", "gs")[0]["state"] == "arrived")
    assert (online.folder / "runs.txt").read_text() == "run\nrun\n"
    _, err = receiver.end()
    assert "failed  registry.alias.created.v1" in err[0]
    assert "--exec exited with 3" in err[0]
    assert err[1].startswith("received  ")
    assert err[-1] == "1 received, 0 repeated, 0 verified, 0 refused, 1 failed"


def test_one_that_does_not_end_is_ended_and_the_sender_is_told(offline: Any, run: Any) -> None:
    receiver = run(HANGS, "stubborn", more=("--timeout", "0.3"))
    offline("target", "add", "mine", receiver.url, "--network", "loopback")
    assert "with 500" in offline.run(("target", "test", "mine"), b"", {}).stdout
    assert not Path(f"/proc/{int(receiver.said())}").exists()
    _, err = receiver.end(signal.SIGTERM)
    assert "--exec has not ended within 0.3 s" in err[0]


@pytest.mark.parametrize("mood", ["", "stubborn"])
def test_ctrl_c_ends_what_runs_and_the_event_is_not_lost(online: Any, run: Any, wait_for: Any, mood: str) -> None:
    receiver = run(HANGS, mood)
    online("target", "add", "mine", receiver.url, "--network", "loopback", "--select", "kind=alias")
    online("set", "alias", "gs", "command=x")
    pid = int(receiver.said())
    os.kill(pid, 0)
    receiver.end()
    assert not Path(f"/proc/{pid}").exists()
    assert wait_for(lambda: online.json("delivery", "ls")[0]["state"] == "waiting")


def test_a_shell_reads_it_where_that_is_asked_for(offline: Any, bare: Any) -> None:
    script = 'printf "%s\\n" "$UREG_EVENT_SUBJECT" | tr a-z A-Z; exit 0'
    receiver = Running(bare.start("listen", ":0", "--shell", "--exec", script))
    offline("target", "add", "mine", receiver.url, "--network", "loopback")
    offline("target", "test", "mine")
    out, _ = receiver.end()
    assert out == ["ENDPOINT/SYSTEM/MINE"]


def test_a_challenge_runs_nothing(offline: Any, run: Any) -> None:
    receiver = run("raise SystemExit(1)")
    secret = offline.json("target", "add", "mine", receiver.url, "--network", "loopback")["secret"]
    assert secret
    assert "validated" in offline("target", "validate", "mine").stdout
    assert "received  registry.target.challenge.v1" in receiver.end()[1][0]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--exec", "no-such-command x"), 3, "no command 'no-such-command'"),
        (("--exec", ""), 2, "names no command"),
        (("--exec", "a 'b"), 2, "quotation"),
        (("--shell",), 2, "--shell is of --exec"),
        (("--timeout", "5"), 2, "--timeout is of --exec"),
        (("--exec", "true", "--timeout", "0"), 2, "timeout"),
    ],
)
def test_what_cannot_be_run_is_said_before_it_listens(bare: Any, words: tuple[str, ...], code: int, said: str) -> None:
    done = bare("listen", ":0", *words, code=code)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_that_vanished_costs_no_event(offline: Any, bare: Any) -> None:
    script = Path(bare.write("on-event.sh", "#!/bin/sh\nexit 0\n"))
    script.chmod(0o755)
    receiver = Running(bare.start("listen", ":0", "--exec", str(script)))
    script.unlink()
    offline("target", "add", "mine", receiver.url, "--network", "loopback")
    assert "with 500" in offline.run(("target", "test", "mine"), b"", {}).stdout
    _, err = receiver.end()
    assert "--exec cannot be run: No such file or directory" in err[0]
