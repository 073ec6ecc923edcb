"""The seven ways to propagate as people type them, the seed's lines through plain sh, and words on sessions."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SEED = (
    "init",
    "status",
    "unidirectional --source myservice --target remote.service",
    "bidirectional --source service1 --target service2",
    'multicast --source hub --targets "s1,s2,s3"',
    'broadcast --source publisher --exclude "internal"',
)
QUEUE = "SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry')"
WEBHOOKS = "SELECT COUNT(*) FROM webhook_queue WHERE status='pending'"


def came(receiver: Any) -> list[str]:
    return [event["subject"] for event in receiver.stop() if event["state"] == "received"]


def sh(ureg: Any, line: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A line as it stands in the seed, in a plain shell."""
    done = subprocess.run(
        ["sh", "-c", f'"$CLI" {line}'],
        cwd=ureg.folder,
        env={**ureg.environ, "CLI": str(ROOT / "cli" / "registry_cli.sh"), "REGISTRY_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, (line, done)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
def test_the_seeds_lines_in_their_order(
    bare: Any, listen: Callable[..., Any], wait_for: Any, request: pytest.FixtureRequest
) -> None:
    said = {line.split()[0]: sh(bare, line) for line in SEED}
    assert "myservice does not exist yet" in said["unidirectional"].stderr
    assert "held until you run: ureg target add remote.service URL" in said["unidirectional"].stderr
    assert "nothing is exchanged until then" in said["bidirectional"].stderr
    assert [name in said["multicast"].stderr for name in ("add s1 URL", "add s2 URL", "add s3 URL")] == [True] * 3
    assert "--exclude 'internal' matches no target now" in said["broadcast"].stderr
    before = {each["session"]: each["state"] for each in bare.json("session", "ls")}
    for line in SEED:
        sh(bare, line)
    assert {each["session"]: each["state"] for each in bare.json("session", "ls")} == before, "the same is the same"
    assert sorted(before.values()) == ["degraded", "degraded", "degraded", "planned"]
    bare("up")
    request.addfinalizer(lambda: bare("down"))
    for name in ("myservice", "hub", "publisher", "service1"):
        bare("set", "service", name, "port=1")
    assert wait_for(lambda: bare.json("status")["health"]["queue_depth"] == 8)
    if "REGISTRY_DB_HOST" not in bare.environ:
        _at_rest(bare)
    receivers = {name: listen() for name in ("remote.service", "s1", "s2", "s3")}
    for name, receiver in receivers.items():
        bare("target", "add", name, receiver.url)
    assert wait_for(lambda: bare.json("status")["health"]["queue_depth"] == 0)
    got = {name: sorted(came(receiver)) for name, receiver in receivers.items()}
    one = ["service/default/hub", "service/default/publisher"]
    both = ["service/default/myservice", "service/default/publisher"]
    assert got == {"remote.service": both, "s1": one, "s2": one, "s3": one}
    states = {each["mode"]: each["state"] for each in bare.json("session", "ls")}
    assert states == {
        "unidirectional": "in_sync",
        "bidirectional": "planned",
        "multicast": "in_sync",
        "broadcast": "in_sync",
    }


def _at_rest(ureg: Any) -> None:
    """The seed's two queries say what `status` and the metrics file say."""
    health = ureg.json("status")["health"]
    with sqlite3.connect(f"file:{ureg.home / '.registry_propagation.db'}?mode=ro", uri=True) as database:
        found = [database.execute(query).fetchone()[0] for query in (QUEUE, WEBHOOKS)]
    assert found == [health["queue_depth"], health["webhooks_pending"]]


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_the_shells_say_the_same(bare: Any, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    bare("init")
    words = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*words, str(ROOT / "cli" / "registry_cli.sh"), "multicast", "hub", "s1", "s 2", '{"n": [1, "é"]}'],
        cwd=bare.folder,
        env={**bare.environ, "REGISTRY_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    assert "s1, s 2 get hub once" in done.stdout
    assert "ureg target add 's 2' URL" in done.stderr


def test_positions(offline: Any) -> None:
    ureg = offline
    ureg("unidirectional", "a", "t", "plain text", "http")
    ureg("broadcast", "a", "plain text", "webhook")
    ureg("multicast", "a", "t", "u", "@" + ureg.write("data.json", '{"n": 1}'))
    ureg("multicast", "a", "t", "-", stdin="[1]")
    ureg("fanout", "a", "t", "u")
    ureg("chain", "a", "t", "u", "--on-failure", "skip")
    ureg("mesh", "north", "south")
    said = ureg("bidirectional", "a", "t", '{"n": 1}', "http").stdout
    assert said.endswith(": t, a get a once\n")
    modes = [(each["mode"], each["standing"]) for each in ureg.json("session", "ls")]
    assert sorted(set(modes)) == [
        ("bidirectional", False),
        ("broadcast", False),
        ("chain", True),
        ("fanout", True),
        ("mesh", True),
        ("multicast", False),
        ("unidirectional", False),
    ]
    refused = ureg("multicast", "a", "t", "u", code=2).stderr
    assert "the last word 'u' is no data: JSON, @FILE or -" in refused
    assert '--targets "a,b"' in refused
    assert (
        "protocol peer is not built yet (built: http, webhook, websocket, nats)"
        in ureg("unidirectional", "a", "t", "x", "peer", code=9).stderr
    )
    assert (
        "http, webhook, websocket, stream, nats, peer, file"
        in ureg("unidirectional", "a", "t", "x", "smoke", code=2).stderr
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["multicast", "--source", "a"], 2, "needs a target"),
        (["multicast", "--targets", "a,b"], 2, "no source is given"),
        (["broadcast"], 2, "no source is given"),
        (["chain", "--source", "a", "--targets", "a"], 2, "no target is left"),
        (["mesh", "north"], 2, "at least 2 targets"),
        (["bidirectional", "a", "http://127.0.0.1:9"], 6, "cannot write back"),
        (["bidirectional", "a", "hook"], 6, "hook is a webhook target and cannot write back"),
        (["bidirectional", "a", "b", "{}", "peer"], 9, "protocol peer is not built yet"),
        (["enable-stream", "id", "nats"], 2, "ureg target add"),
        (["multicast", "a", "--targets", "b", "--wait=soon"], 2, "such as 30s"),
        (["unidirectional", "a", "b", "--deadline", "5s"], 2, "no deadline"),
        (["unidirectional", "a", "b", "--strict"], 3, "no record 'a'"),
        (["session", "pause", "nosuch"], 3, "no session 'nosuch'"),
        (["session", "replay", "nosuch", "--dry-run"], 3, "no session 'nosuch'"),
        (["delivery", "why", "nosuch"], 3, "ureg delivery ls"),
        (["route", "explain", "alias", "nosuch"], 3, "no record"),
    ],
)
def test_mistakes_are_one_line(offline: Any, words: list[str], code: int, says: str) -> None:
    offline("target", "add", "hook", "http://127.0.0.1:9")
    revision = offline.json("status")["revision"]
    done = offline(*words, code=code)
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert offline.json("status")["revision"] == revision


def test_a_dry_run_says_who_and_who_not(ureg: Any) -> None:
    ureg("target", "add", "mine", "http://127.0.0.1:9")
    ureg("target", "add", "inner", "http://127.0.0.1:9")
    ureg("set", "alias", "gs", "command=x")
    revision = ureg.json("status")["revision"]
    said = ureg("broadcast", "--source", "kind=alias", "--exclude", "inn*", "--dry-run")
    assert said.stdout.splitlines() == [
        "would send the state of kind=alias and each later change (broadcast, created)",
        "  to mine: http://127.0.0.1:9, ready",
        "  not to inner: inn*",
    ]
    assert ureg.json("chain", "gs", "mine", "new", "--dry-run")["states"][1]["state"] == "new"
    assert ureg.json("status")["revision"] == revision


def test_waiting_for_any_and_for_all(ureg: Any, listen: Callable[..., Any]) -> None:
    receiver = listen()
    ureg("set", "alias", "gs", "command=x")
    ureg("target", "add", "up", receiver.url)
    done = ureg("multicast", "--source", "gs", "--targets", "up,nowhere", "--wait=any,20s")
    assert "1 in sync, 1 held (nowhere)" in done.stderr
    done = ureg("multicast", "--source", "gs", "--targets", "up,nowhere", "--wait=20s", code=8)
    assert "1 of 2 targets have it; not: nowhere" in done.stderr
    assert came(receiver) == ["alias/default/gs"]


def test_a_chain_from_hand_to_hand(ureg: Any, listen: Callable[..., Any]) -> None:
    first, second = listen(), listen()
    ureg("target", "add", "first", first.url)
    ureg("target", "add", "second", second.url)
    done = ureg("chain", "--source", "hub", "--targets", "first,second", "--data", '{"n": 1}', "--wait=20s")
    assert "succeeded" in done.stdout
    assert came(first) == came(second) == ["component/default/hub"]


def test_words_on_a_session(online: Any, listen: Callable[..., Any], wait_for: Any) -> None:
    ureg, receiver = online, listen()
    ureg("target", "add", "mine", receiver.url)
    session = ureg.json("unidirectional", "kind=alias", "mine")["session"]
    assert "paused" in ureg("session", "pause", session).stdout
    assert "paused already" in ureg("session", "pause", session).stdout
    ureg("set", "alias", "gs", "command=x")
    assert wait_for(lambda: [each["state"] for each in ureg.json("delivery", "ls")] == ["held"])
    (delivery,) = ureg("delivery", "ls", "-o", "name").stdout.split()
    why = ureg("delivery", "why", delivery).stdout
    assert "scheduled  put of alias/default/gs in revision 4, by route" in why
    assert "held (paused): paused by uid:" in why
    assert "goes on" in ureg("session", "resume", session).stdout
    assert wait_for(lambda: ureg.json("where", "gs")[0]["state"] == "arrived")
    assert "would send 1 delivery" in ureg("session", "replay", session, "--dry-run").stdout
    again = ureg.json("session", "replay", session)["session"]
    assert wait_for(lambda: ureg.json("session", "get", again)["state"] == "succeeded")
    assert "delivered already: mine" in ureg("session", "cancel", session).stdout
    assert "has ended: cancelled (begin it again: ureg unidir" in ureg("session", "resume", session, code=5).stderr
    assert [each["to"] for each in ureg.json("session", "get", session)["steps"]][-1] == "cancelled"
    assert ureg.json("route", "ls") == []
    assert came(receiver) == ["alias/default/gs"] * 2


def test_the_same_key_does_it_once(ureg: Any) -> None:
    ureg("target", "add", "mine", "http://127.0.0.1:9")
    ureg("set", "alias", "gs", "command=x")
    words = ("unidirectional", "gs", "mine", '{"n": 1}', "--idempotency-key")
    first, again = ureg(*words, "k 1"), ureg(*words, "k 1")
    assert first.stdout.split()[1] == again.stdout.split()[1]
    assert "this was done before" in again.stderr
    assert "this was done before" not in first.stderr
    assert "another request" in ureg("unidirectional", "gs", "mine", "2", "--idempotency-key", "k 1", code=6).stderr
    for key in ("", " k", "a\nb: c", "\u00e9", "k" * 256):
        assert "1 to 255" in ureg(*words, key, code=2).stderr
    assert len(ureg.json("session", "ls")) == 1
    assert ureg.json("chain", "gs", "--via", "mine", "--dry-run")["targets"] == ["system/mine"]


def test_who_gets_a_record(ureg: Any) -> None:
    ureg("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias,name=x*")
    ureg("target", "add", "other", "http://127.0.0.1:9", "--select", "kind=alias")
    ureg("set", "alias", "gs", "command=x")
    said = {
        line.split("\t")[1]: line for line in ureg("route", "explain", "alias", "gs", "-o", "tsv").stdout.splitlines()
    }
    assert "mine: its name is gs, the route asks for x*" in said["mine"]
    assert "route other means it" in said["other"]
    assert json.loads(ureg("route", "explain", "alias", "gs", "-o", "json").stdout)[0]["name"] == "gs"


def test_the_script_needs_no_folder_of_its_own(bare: Any, tmp_path: Path) -> None:
    """From elsewhere, through a link, with a home that does not exist."""
    link = tmp_path / "cli.sh"
    link.symlink_to(ROOT / "cli" / "registry_cli.sh")
    env = {**os.environ, **bare.environ, "REGISTRY_PYTHON": sys.executable}
    for words in (["init"], ["broadcast", "--source", "publisher", "--exclude", "internal"]):
        done = subprocess.run(
            [str(link), *words], cwd="/", env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done
    assert "there is no target to send to yet" in done.stderr
