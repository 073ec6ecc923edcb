"""Concurrent clients of a real daemon that is killed now and then; what they asked and got, for `replay.py`."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from killing import PATIENCE, Daemon, wait_for
from replay import Call, Entry, violations

from universal_registry.client.http import Client, Reply, record_path
from universal_registry.kernel.errors import RegistryError, Unreachable

NAMES = tuple(f"n{number}" for number in range(6))
CLIENTS = 8
VERBS = ("put", "merge", "patch", "cas", "delete", "batch", "get", "get", "get", "list", "list")
JSON_PATCH = "application/json-patch+json"


class Recorded(NamedTuple):
    """A history, what is wrong with it, and how much there was to it."""

    calls: list[Call]
    violations: list[str]
    revisions: int
    replayed: int
    unanswered: int


class Recorder:
    """One client in a thread of its own. It never has two requests under way."""

    def __init__(self, number: int, daemon: Daemon, seed: int, ending: threading.Event) -> None:
        self.calls: list[Call] = []
        self.trouble: list[str] = []
        self.replayed = 0
        self._number, self._daemon, self._ending = number, daemon, ending
        self._chance = random.Random(f"{seed}/{number}")
        self._ids = (f"w{number}.{count}" for count in itertools.count())
        self._client: Client | None = None
        self.thread = threading.Thread(target=self._run, name=f"client {number}")
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self.calls.append(self._one(self._chance.choice(VERBS)))
        except Exception as error:  # noqa: BLE001 - told in the main thread, by the test
            self.trouble.append(f"client {self._number}: {error!r}")

    def _one(self, verb: str) -> Call:
        """Ask, and note what came."""
        many = {"batch": 3, "list": len(NAMES)}.get(verb, 1)
        names = tuple(self._chance.sample(NAMES, many))
        if verb in ("get", "list"):
            return self._asked(Call(self._number, verb, names, time.monotonic()), None)
        call = Call(self._number, verb, names, time.monotonic(), id=next(self._ids))
        if verb == "delete":
            call = replace(call, commands={names[0]: None})
        elif verb == "patch":
            call = replace(call, expects=self._last(names[0]).command, commands={names[0]: call.id})
        elif verb == "cas":
            call = replace(call, verb="put", only_at=self._last(names[0]).revision, commands={names[0]: call.id})
        else:
            call = replace(call, commands=dict.fromkeys(names, call.id))
        # Half of the writes bear a key: then they are repeated until they are answered, and must be done once.
        return self._asked(call, call.id if self._chance.random() < 0.5 else None)

    def _last(self, name: str) -> Entry:
        """What this client has seen last of the record: often the truth, often not any more."""
        for call in reversed(self.calls[-20:]):
            if name in call.seen:
                return call.seen[name]
        return Entry("nothing", 0, 0)

    def _asked(self, call: Call, key: str | None) -> Call:
        while True:
            try:
                reply = self._send(call, key)
            except Unreachable:
                self._drop()
                if key is None or self._ending.is_set():
                    self._until_back()
                    return call
                self._until_back()
                continue
            except RegistryError as error:
                return self._refused(call, error)
            ended = time.monotonic()
            self.replayed += reply.headers.get("idempotency-replayed") == "true"
            return _answered(call, reply, ended)

    def _refused(self, call: Call, error: RegistryError) -> Call:
        if error.code not in ("not-found", "precondition-failed", "invalid") or "head" not in error.data:
            raise error
        refused = "" if call.verb == "get" else error.code
        return replace(call, ended=time.monotonic(), revision=error.data["head"], refused=refused)

    def _send(self, call: Call, key: str | None) -> Reply:
        if self._client is None:
            self._client = self._daemon.client()
        method, path, body, headers, query = _request(call)
        if key is not None:
            headers = {**headers, "idempotency-key": key}
        return self._client.request(method, path, json=body, headers=headers, query=query)

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _until_back(self) -> None:
        """Until a daemon answers again, or the end."""

        def is_back() -> bool:
            if self._ending.is_set():
                return True
            try:
                with self._daemon.client() as client:
                    return client.request("GET", "/health/live").status == 200
            except (RegistryError, AssertionError):
                return False

        wait_for(is_back, "back")

    def end(self) -> None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "a client hangs"
        self._drop()


def _request(call: Call) -> tuple[str, str, Any, dict[str, str], dict[str, str]]:
    """Method, path, body, headers, query."""
    if call.verb == "list":
        return "GET", "/v1/default/aliases", None, {}, {}
    if call.verb == "batch":
        operations = [
            {"op": "put", "kind": "alias", "name": name, "spec": {"command": command}}
            for name, command in call.commands.items()
        ]
        return "POST", "/v1/batch", {"operations": operations, "message": call.id}, {}, {}
    path = record_path("default", "aliases", call.names[0])
    query = {"message": call.id} if call.id else {}
    headers = {}
    if call.only_at is not None:
        headers = {"if-match": f'"{call.only_at}"'} if call.only_at else {"if-none-match": "*"}
    if call.verb == "get":
        return "GET", path, None, headers, query
    if call.verb == "delete":
        return "DELETE", path, None, headers, query
    if call.verb == "patch":
        steps = [
            {"op": "test", "path": "/spec/command", "value": call.expects},
            {"op": "replace", "path": "/spec/command", "value": call.id},
        ]
        return "PATCH", path, steps, {"content-type": JSON_PATCH}, query
    return "PUT" if call.verb == "put" else "PATCH", path, {"spec": {"command": call.id}}, headers, query


def _answered(call: Call, reply: Reply, ended: float) -> Call:
    revision = int(reply.headers["registry-revision"]) if "registry-revision" in reply.headers else None
    answer = reply.json()
    if call.verb == "get":
        return replace(call, ended=ended, revision=revision, seen=_entries([answer]))
    if call.verb == "list":
        return replace(call, ended=ended, revision=revision, seen=_entries(answer["items"]))
    if call.verb == "batch":
        effects = {each["name"]: each["effect"] for each in answer["results"]}
        return replace(call, ended=ended, revision=answer["revision"], effects=effects)
    seen = _entries([answer["record"]]) if "record" in answer else {}
    return replace(call, ended=ended, revision=answer["revision"], effects={call.names[0]: answer["effect"]}, seen=seen)


def _entries(documents: list[dict[str, Any]]) -> dict[str, Entry]:
    return {
        each["name"]: Entry(each["spec"]["command"], each["meta"]["revision"], each["meta"]["generation"])
        for each in documents
    }


def record(
    home: Path, command: list[str], *, seed: int, kills: int, calls: int, settings: Mapping[str, str] | None = None
) -> Recorded:
    """Run the clients until they have made so many calls, with the kills spread over them; then judge."""
    daemon = Daemon(home, command, **(settings or {}))
    daemon.start()
    ending = threading.Event()
    recorders = [Recorder(number, daemon, seed, ending) for number in range(CLIENTS)]

    def made() -> int:
        assert not any(each.trouble for each in recorders), [each.trouble for each in recorders]
        return sum(len(each.calls) for each in recorders)

    try:
        for kill in range(kills + 1):
            wait_for(lambda kill=kill: made() >= calls * (kill + 1) // (kills + 1), f"at {kill}", seconds=60)
            if kill < kills:
                daemon.kill()
                daemon.start()
        ending.set()
        for each in recorders:
            each.end()
        assert made()
        with daemon.client() as client:
            log = _log(client)
        assert daemon.stop() == 0, daemon.last_words()
    finally:
        ending.set()
        daemon.process.kill()
        daemon.process.wait(PATIENCE)
    history = [call for each in recorders for call in each.calls]
    return Recorded(
        history,
        violations(history, log),
        len(log),
        sum(each.replayed for each in recorders),
        sum(call.ended is None for call in history),
    )


def _log(client: Client) -> dict[int, str]:
    """Revision -> the message of its lines."""
    found: dict[int, str] = {}
    cursor = None
    while True:
        *lines, last = map(orjson.loads, client.request("GET", "/v1/changes", query={"after": cursor}).lines())
        if not lines:
            return found
        found |= {line["revision"]: line.get("message", "") for line in lines}
        cursor = last["cursor"]
