"""Watches of real daemons: killed in the middle, several on one database, and the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.client.http import daemon_addresses
from universal_registry.client.stream import StreamClient
from universal_registry.client.watch import WatchClient
from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.settings import Places
from universal_registry.log.cursor import parse_cursor

UREG = [sys.executable, "-P", "-m", "universal_registry"]
PATIENCE = 60.0


class Follower:
    """Watches all aliases from the beginning, in a thread, until it has been told of a record of that name."""

    def __init__(self, kind: type[WatchClient], addresses: Callable[[], Sequence[str]], last: str) -> None:
        self.told: list[tuple[int, str]] = []
        self._client = kind(addresses)
        self._last = last
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._follow()))
        self._thread.start()

    async def _follow(self) -> None:
        async with aclosing(self._client.watch("kind=alias", start="beginning")) as changes:
            async for change in changes:
                if change.op == "synced":
                    continue
                with self._grown:
                    self.told.append((change.revision, change.name))
                    self._grown.notify_all()
                if change.name == self._last:
                    return

    def until(self, count: int) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.told) >= count, PATIENCE)

    def finish(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"{len(self.told)} told, never {self._last}"


def logged(client: Any) -> list[tuple[int, str]]:
    """The log, as the long poll has it: another way to the same lines."""
    found, cursor = [], "beginning"
    while True:
        *lines, end = client.request("GET", "/v1/changes", query={"from": cursor, "limit": 5000}).lines()
        if not lines:
            return found
        changes = [json.loads(line) for line in lines]
        found += [(each["revision"], each["name"]) for each in changes if each["kind"] == "alias"]
        cursor = json.loads(end)["cursor"]


@pytest.mark.parametrize("kind", [WatchClient, StreamClient])
def test_killed_in_the_middle_of_a_watch(
    start: Any, load: Any, put: Any, tmp_path: Path, kind: type[WatchClient]
) -> None:
    """Three kills under load: each revision once, in order; what was acknowledged is among them."""
    home = tmp_path / "home"
    daemon = start(home).ready()
    follower = Follower(kind, lambda: daemon_addresses(Places(home))[:1], "the-last")
    acknowledged: list[str] = []
    for number in range(3):
        writers = load(daemon, prefix=f"load{number}")
        writers.until(60)
        follower.until(len(follower.told) + 20)
        daemon.end(signal.SIGKILL)
        writers.finish()
        acknowledged += writers.acknowledged
        daemon = start(home).ready()
    put(daemon.client(), "the-last")
    follower.finish()
    assert follower.told == logged(daemon.client())
    assert set(acknowledged) <= {name for _, name in follower.told}


@pytest.mark.parametrize("kind", [WatchClient, StreamClient])
def test_a_watch_goes_on_at_another_daemon_of_the_database(
    start: Any, load: Any, put: Any, tmp_path: Path, postgres: pgserver.Server, kind: type[WatchClient]
) -> None:
    postgres.database("watched")
    env = postgres.environment("watched")
    homes = [tmp_path / "one", tmp_path / "two"]
    first = start(homes[0], **env).ready()
    # The key is the database's: the second daemon gets it as a second machine would.
    (homes[1] / "config").mkdir(parents=True, mode=0o700)
    for file in (homes[0] / "config").iterdir():
        if file.is_file():
            (homes[1] / "config" / file.name).write_bytes(file.read_bytes())
            (homes[1] / "config" / file.name).chmod(0o600)
    second = start(homes[1], **env).ready()
    follower = Follower(kind, lambda: [daemon_addresses(Places(home))[0] for home in homes], "the-last")
    writers, others = load(first, prefix="one"), load(second, prefix="two")
    writers.until(60)
    others.until(60)
    follower.until(60)
    first.end(signal.SIGKILL)
    writers.finish()
    others.until(len(others.acknowledged) + 60)
    second_client = second.client()
    put(second_client, "the-last")
    follower.finish()
    second.end()
    others.finish()
    third = start(homes[1], **env).ready()
    whole = logged(third.client())
    assert follower.told == whole[: len(follower.told)]
    assert set(writers.acknowledged) <= {name for _, name in whole}


class Consuming:
    """Reads as a named consumer in a thread and acknowledges each change, until its daemon goes or a name has come."""

    def __init__(self, daemon: Any, last: str = "") -> None:
        self.told: list[tuple[int, str]] = []
        self.acknowledged = self.asked = ""
        self._daemon = daemon
        self._last = last
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._read()))
        self._thread.start()

    async def _read(self) -> None:
        client = WatchClient(lambda: daemon_addresses(self._daemon.places)[:1])
        caller = self._daemon.client()
        async with aclosing(client.watch(consumer="audit")) as changes:
            async for change in changes:
                if change.op == "synced":
                    continue
                with self._grown:
                    self.told.append((change.revision, change.name))
                    self._grown.notify_all()
                self.asked = change.cursor
                try:
                    caller.request("POST", "/v1/-/consumers/audit/ack", query={"cursor": change.cursor})
                except RegistryError:
                    return
                self.acknowledged = change.cursor
                if change.name == self._last:
                    return

    def until(self, count: int) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.told) >= count, PATIENCE)

    def finish(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_a_named_consumer_loses_nothing_when_all_is_killed(start: Any, load: Any, put: Any, tmp_path: Path) -> None:
    """Each run begins behind what was acknowledged last, and nowhere else; an answer that was cut off may count."""
    daemon = start(tmp_path / "home").ready()
    daemon.client().request("PUT", "/v1/-/consumers/audit", json={"select": ["kind=alias"]})
    runs: list[list[tuple[int, str]]] = []
    places = [0]
    for number in range(3):
        writers = load(daemon, prefix=f"load{number}")
        consuming = Consuming(daemon)
        consuming.until(40)
        daemon.end(signal.SIGKILL)
        writers.finish()
        consuming.finish()
        runs.append(consuming.told)
        daemon = start(tmp_path / "home").ready()
        kept = daemon.client().request("GET", "/v1/-/consumers/audit").json()["cursor"]
        assert kept in (consuming.acknowledged, consuming.asked)
        places.append(parse_cursor(kept).revision)
    put(daemon.client(), "the-last")
    consuming = Consuming(daemon, "the-last")
    consuming.finish()
    runs.append(consuming.told)
    whole = logged(daemon.client())
    for place, run in zip(places, runs, strict=True):
        behind = [each for each in whole if each[0] > place]
        assert run == behind[: len(run)]
    assert {each for run in runs for each in run} == set(whole)
    assert daemon.client().request("GET", "/v1/-/consumers/audit").json()["lag"] == 0


# --- the command ----------------------------------------------------------------------------------------------------


class Command:
    """`ureg get alias -w`, under way."""

    def __init__(self, home: Path, *words: str) -> None:
        env = {**os.environ, "REGISTRY_HOME": str(home), "REGISTRY_LISTEN": "127.0.0.1:0"}
        env["PYTHONPATH"] = str(Path(__file__).resolve().parents[3])
        self.process = subprocess.Popen(
            [*UREG, "get", "alias", "-w", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.lines = self.process.stdout

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@pytest.fixture
def watching(tmp_path: Path) -> Any:
    begun: list[Command] = []

    def begin(*words: str) -> Command:
        begun.append(Command(tmp_path / "home", *words))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.communicate()


def test_get_watch_shows_what_is_there_and_each_change_and_outlives_the_daemon(
    start: Any, put: Any, watching: Any, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    daemon = start(home).ready()
    put(daemon.client(), "a")
    command = watching()
    assert command.lines.readline().split()[:3] == ["=", "1", "alias/a"]
    put(daemon.client(), "b")
    assert command.lines.readline().split()[:3] == ["+", "2", "alias/b"]
    daemon.end(signal.SIGKILL)
    daemon = start(home).ready()
    daemon.client().request("DELETE", "/v1/default/aliases/a")
    put(daemon.client(), "c")
    assert command.lines.readline().split()[:3] == ["-", "3", "alias/a"]
    assert command.lines.readline().split()[:3] == ["+", "4", "alias/c"]
    assert command.end() == (0, "")


def test_get_watch_as_json_is_a_frame_a_line(start: Any, put: Any, watching: Any, tmp_path: Path) -> None:
    daemon = start(tmp_path / "home").ready()
    command = watching("-o", "json", "--from", "now", "--name", "b*")
    assert json.loads(command.lines.readline())["type"] == "synced"
    put(daemon.client(), "a")
    put(daemon.client(), "b")
    frame = json.loads(command.lines.readline())
    assert [(event["op"], event["name"]) for event in frame["events"]] == [("put", "b")]
    assert command.end() == (0, "")


def test_get_watch_ends_when_nobody_reads(start: Any, put: Any, watching: Any, tmp_path: Path) -> None:
    daemon = start(tmp_path / "home").ready()
    command = watching("-o", "json", "--from", "now")
    command.lines.readline()
    command.lines.close()
    put(daemon.client(), "a")
    assert command.process.wait(PATIENCE) in (0, 141, -signal.SIGPIPE)
    assert command.process.stderr is not None
    assert "Traceback" not in command.process.stderr.read()


def test_get_watch_ends_when_nobody_reads_and_nothing_happens(start: Any, watching: Any, tmp_path: Path) -> None:
    start(tmp_path / "home").ready()
    command = watching("-o", "json", "--from", "now")
    command.lines.readline()
    command.lines.close()
    assert command.process.wait(PATIENCE) in (0, 141, -signal.SIGPIPE)
    assert command.process.stderr is not None
    assert command.process.stderr.read() == ""


def test_get_watch_without_a_daemon_says_what_to_do(ureg: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    ureg(home, "init")
    done = ureg(home, "get", "alias", "-w")
    assert done.returncode == 7
    assert "ureg up" in done.stderr
    assert ureg(home, "get", "alias", "--from", "now").returncode == 2


def test_consumers_from_the_command_line(start: Any, put: Any, ureg: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    daemon = start(home).ready()
    made = ureg(home, "consumer", "add", "audit", "--select", "kind=alias", "--start", "beginning", "-o", "json")
    assert json.loads(made.stdout)["selector"] == {"kinds": ["alias"]}
    put(daemon.client(), "a")
    put(daemon.client(), "b")
    (listed,) = json.loads(ureg(home, "consumer", "ls", "-o", "json").stdout)
    assert (listed["name"], listed["lag"]) == ("audit", 2)
    frame = json.loads(daemon.client().request("GET", "/v1/changes", query={"limit": "1"}).body.splitlines()[-1])
    acked = json.loads(ureg(home, "consumer", "ack", "audit", frame["cursor"], "-o", "json").stdout)
    assert acked["lag"] == 2 - parse_cursor(frame["cursor"]).revision
    assert "audit" in ureg(home, "consumer", "get", "audit").stdout
    daemon.end()
    for words, code in (
        (("get", "audut"), 3),
        (("ack", "audit", "yesterday"), 6),
        (("ack", "audit", "000000000000.1.00000000"), 5),
        (("add", "../x"), 6),
        (("add", "x", "--start", "list"), 2),
        (("rm", ""), 2),
    ):
        done = ureg(home, "consumer", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done
        assert "(" in done.stderr, "what to do"
    assert ureg(home, "consumer", "rm", "audit").stdout == "consumer audit removed\n"
    assert ureg(home, "consumer", "rm", "audit").returncode == 3
    deeds = [each["action"] for each in json.loads(ureg(home, "audit", "ls", "-o", "json").stdout)]
    assert [each for each in deeds if each.startswith("consumer")] == ["consumer.remove", "consumer.add"]
