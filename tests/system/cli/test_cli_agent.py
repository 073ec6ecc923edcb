"""`ureg follow --apply`: what is registered runs on a machine, or that machine and `where` say why it does not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from universal_registry.client.registry import Registry

PATIENCE = 60
PLAN = """
name: web1
roots: [~/conf]
entries:
  shell:
    select: [kind=alias, kind=env_var]
    path: ~/conf/registry.sh
    check: [sh, -n, "{file}"]
  files:
    select: kind=config_file
    path: ~/conf/{name}
    check: [grep, -q, ok, "{file}"]
"""


class Followed:
    """A machine with a plan, which follows the registry of `online`."""

    def __init__(self, online: Any, scope: str = "write") -> None:
        self.online = online
        self.conf = online.folder / "conf"
        self.conf.mkdir()
        online.write(".config/universal-registry/agent.yaml", PLAN)
        token = online("token", "add", "web1", "--scope", scope).stdout.split()[-1]
        online.write("token", token)
        self.address = (online.home / "run" / "address").read_text().splitlines()[1]
        self.words = ("follow", f"http://{self.address}", "--token-file", "token", "--apply")

    def once(self, *more: str, code: int = 0) -> str:
        return str(self.online(*self.words, "--once", *more, code=code).stdout)

    def start(self, *more: str) -> subprocess.Popen[str]:
        started: subprocess.Popen[str] = self.online.start(*self.words, "-o", "ndjson", *more)
        return started

    def where(self, name: str) -> tuple[str, int | None, str]:
        """What `where` says of this machine: state, revision that it has, why."""
        [entry] = [each for each in self.online.json("where", name) if each["target"] == "agents/web1"]
        return entry["state"], entry["arrived_revision"], entry["reason"]


@pytest.fixture
def followed(online: Any) -> Followed:
    return Followed(online)


def told(process: subprocess.Popen[str], state: str, path: Path, revision: int = 0) -> dict[str, Any]:
    """The first line about the path in that state, of that revision or a later one."""
    assert process.stdout is not None
    while True:
        line: dict[str, Any] = json.loads(process.stdout.readline())
        newest = max(line["records"].values(), default=0)
        if (line["state"], line["path"]) == (state, str(path)) and newest >= revision:
            return line


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    return process.returncode


@pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
def test_where_says_what_runs_and_what_does_not(followed: Followed) -> None:
    online, conf = followed.online, followed.conf
    online("set", "alias", "gs", "command=git status -sb")
    revision = online("set", "config_file", "a.conf", "content=ok 1", "-o", "json")
    first = json.loads(revision.stdout)["revision"]
    assert "conf/a.conf" in online(*followed.words, "--dry-run").stdout
    assert os.listdir(conf) == []
    assert followed.once().count("● running") == 2
    assert (conf / "registry.sh").read_text() == "alias 'gs'='git status -sb'\n"
    assert followed.where("gs")[0] == "running"
    assert followed.where("a.conf") == ("running", first, "")
    online("set", "config_file", "a.conf", "content=bad")
    assert followed.where("a.conf")[:2] == ("waiting", first)
    followed.once(code=8)
    state, has, why = followed.where("a.conf")
    assert (state, has) == ("received", first)
    assert why.endswith(f"check failed: grep exited with 1; still on r{first}")
    assert (conf / "a.conf").read_text() == "ok 1"
    online("set", "config_file", "b.conf", "content=ok", "host=elsewhere")
    assert [each for each in online.json("where", "b.conf") if each["target"] == "agents/web1"] == []
    (conf / "registry.sh").write_text("mine")
    assert "it was changed on this machine" in followed.once(code=8)
    assert followed.where("gs")[0] == "held"
    followed.once("--revert", "conf/registry.sh", code=8)
    assert followed.where("gs")[0] == "running"
    (conf / "a.conf").write_text("ok from here")
    followed.once("--adopt", "conf/a.conf")
    assert online.json("get", "config_file", "a.conf")["spec"]["content"] == "ok from here"
    assert followed.where("a.conf")[0] == "running"
    online("delete", "config_file", "a.conf")
    followed.once()
    assert os.listdir(conf) == ["registry.sh"]
    reported = online.json("get", "endpoint", "web1", "-n", "agents")
    assert reported["meta"]["updated_by"] == "token:web1"


def test_it_goes_on_over_a_registry_that_is_away_and_over_a_kill(followed: Followed) -> None:
    online, at = followed.online, followed.conf / "a.conf"
    agent = followed.start()
    online("set", "config_file", "a.conf", "content=ok 1")
    told(agent, "running", at)
    assert at.read_text() == "ok 1"
    online("down")
    online("set", "config_file", "a.conf", "content=ok 2")
    online("up", "--listen", followed.address)
    told(agent, "running", at)
    assert at.read_text() == "ok 2"
    for verb, text in (("--revert", "ok 2"), ("--adopt", "ok, theirs")):
        at.write_text("ok, theirs")
        told(agent, "held", at)  # seen without anything that comes from the registry
        assert "at work here" in online(*followed.words, verb, str(at)).stderr
        told(agent, "running", at)
        assert at.read_text() == text
        assert online.json("get", "config_file", "a.conf")["spec"]["content"] == text
    assert ended(agent, signal.SIGKILL) == -signal.SIGKILL
    online("set", "config_file", "b.conf", "content=ok b")
    online("delete", "config_file", "a.conf")
    agent = followed.start()
    told(agent, "removed", at)
    assert os.listdir(followed.conf) == ["b.conf"]
    again = online(*followed.words, "--once", code=5)
    assert "another agent is at work" in again.stderr
    assert ended(agent, signal.SIGINT) == 0


def test_killed_again_and_again_it_comes_to_have_what_is_registered(followed: Followed) -> None:
    chance, wanted = random.Random(7), {}
    with Registry.at(str(followed.online.home / "run" / "ureg.sock")) as registry:
        for turn in range(6):
            agent = followed.start()
            for number in range(chance.randrange(1, 40)):
                name = f"f{chance.randrange(6)}"
                if name in wanted and chance.random() < 0.4:
                    registry.delete("config_file", name)
                    del wanted[name]
                else:
                    wanted[name] = f"ok {turn} {number}"
                    registry.put("config_file", name, {"content": wanted[name]})
            if turn % 2:
                wanted["last"] = f"ok {turn}"
                registry.put("config_file", "last", {"content": wanted["last"]})
                told(agent, "running", followed.conf / "last", registry.get("config_file", "last")["meta"]["revision"])
                assert {path.name: path.read_text() for path in followed.conf.iterdir()} == wanted
            assert ended(agent, signal.SIGKILL) == -signal.SIGKILL


def test_without_the_registry_what_came_before_is_kept_as_it_was(followed: Followed) -> None:
    online, at = followed.online, followed.conf / "a.conf"
    online("set", "config_file", "a.conf", "content=ok 1")
    followed.once()
    online("down")
    at.unlink()
    assert "○ held" in followed.once(code=7)
    assert "● running" in followed.once("--revert", str(at), code=7)
    assert at.read_text() == "ok 1"
    online("up", "--listen", followed.address)


def test_who_may_only_read_follows_and_says_that_it_could_not_report(online: Any) -> None:
    followed = Followed(online, "read")
    online("set", "config_file", "a.conf", "content=ok 1")
    done = online(*followed.words, "--once", code=4)
    assert "could not be reported" in done.stderr
    assert (followed.conf / "a.conf").read_text() == "ok 1"
    assert [each for each in online.json("where", "a.conf") if each["target"].startswith("agents/")] == []


def test_a_report_that_somebody_made_up_breaks_nothing(online: Any) -> None:
    online("set", "alias", "gs", "command=ls")
    for number, agent in enumerate(
        ({}, {"at": 99, "selectors": [{"kinds": ["nokind"]}, {"x": 1}]}, {"at": "x"}, {"at": 1, "selectors": [[]]})
    ):
        spec = {"kind": "endpoint", "namespace": "agents", "name": f"m{number}", "classification": "AgentEndpoint"}
        online.run(("apply", "-f", "-"), json.dumps({**spec, "spec": {"agent": agent}}).encode(), {})
    assert online.json("where", "gs") == []


def test_what_cannot_be_applied_is_said_in_one_line(followed: Followed) -> None:
    online = followed.online
    for words, code in {
        (*followed.words, "kind=alias"): 2,
        (*followed.words, "--from", "now"): 2,
        (*followed.words, "--plan", "noplan"): 3,
        (*followed.words, "--plan", str(online.folder)): 2,
        (*followed.words, "--once", "--adopt", "conf/none"): 3,
        (*followed.words, "--once", "--adopt", "/etc/passwd"): 9,
        (*followed.words, "--once", "--revert", "/etc/passwd"): 9,
        (*followed.words, "--state", "/proc/nowhere"): 1,
        ("follow", "http://127.0.0.1:1", "--apply", "--once"): 7,
        ("follow", "http://127.0.0.1:1", "--apply", "--dry-run"): 7,
        (*followed.words[:-1], "--once"): 2,
        (*followed.words[:-1], "--plan", "x"): 2,
    }.items():
        said = online(*words, code=code).stderr
        assert said.startswith("ureg: "), words
        assert said.count("\n") == 1, words
    plan = online.folder / ".config" / "universal-registry" / "agent.yaml"
    plan.chmod(0o666)
    assert "may be changed by others" in online(*followed.words, "--once", code=9).stderr
    plan.chmod(0o644)
    for text in ("", "{", "roots: [~/conf]", PLAN.replace("~/conf", "/"), PLAN + "---\n" + PLAN):
        plan.write_text(text)
        assert online.run((*followed.words, "--once"), b"", {}).returncode in (6, 9), text
