"""The engine over real stores, with a clock that the test moves and targets that do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import RetrySettings, Settings
from universal_registry.kernel.world import SystemWorld, uuid7_hex
from universal_registry.propagation.engine.engine import Engine
from universal_registry.propagation.lanes.lane import Lane
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
from universal_registry.propagation.ports import Envelope
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.security.wire import SEALED_TYPE, new_wire_key, open_from_wire, parse_wire_key
from universal_registry.storage.database import Database
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import GroupWriter

OPERATOR = Actor("uid:1000", admin=True)


class StageWorld(SystemWorld):
    """A clock that stands still until it is moved; chance is always in the middle."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self._ids = 0

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def chance(self) -> float:
        return 0.5

    def new_id(self) -> str:
        self._ids += 1
        return uuid7_hex(int(self.moment.timestamp() * 1000), self._ids.to_bytes(10, "big"))


class Targets:
    """A transport whose far side is in the test: it notes what came, and answers as it was told.

    `down`: URLs that fail. `answers`: URL -> outcomes for its next attempts. `gate`: attempts to that URL wait for it.
    `seal_keys`: what sealed bodies are opened with.
    """

    name = "webhook"

    def __init__(self) -> None:
        self.got: dict[str, list[dict[str, Any]]] = {}
        self.ids: dict[str, list[str]] = {}
        self.headers: dict[str, list[dict[str, str]]] = {}
        self.replays: dict[str, list[str]] = {}
        self.down: set[str] = set()
        self.answers: dict[str, list[Outcome]] = {}
        self.seal_keys: list[bytes] = []
        self.sealed = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.attempts = 0
        self.under_way: dict[str, int] = {}
        self.most_under_way = 0
        self.watch: Callable[[], object] = lambda: None

    async def send(self, envelope: Envelope) -> Outcome:
        name = envelope.url.rsplit("/", 1)[-1]
        self.attempts += 1
        self.under_way[name] = self.under_way.get(name, 0) + 1
        self.most_under_way = max(self.most_under_way, sum(self.under_way.values()))
        self.watch()
        try:
            if name in self.gates:
                await self.gates[name].wait()
            return self._answer(name, envelope)
        finally:
            self.under_way[name] -= 1

    def _answer(self, name: str, envelope: Envelope) -> Outcome:
        outcome: Outcome = Accepted(status=200, milliseconds=1.0)
        if name in self.down:
            outcome = Failed(reason="connection refused", status=None, milliseconds=1.0)
        elif self.answers.get(name):
            outcome = self.answers[name].pop(0)
        if isinstance(outcome, Accepted):
            self.got.setdefault(name, []).append(orjson.loads(self._opened(envelope)))
            headers = dict(envelope.headers)
            self.headers.setdefault(name, []).append(dict(envelope.headers))
            self.ids.setdefault(name, []).append(headers["webhook-id"])
            if "replay-of" in headers:
                self.replays.setdefault(name, []).append(headers["replay-of"])
        return outcome

    def _opened(self, envelope: Envelope) -> bytes:
        if dict(envelope.headers)["content-type"] != SEALED_TYPE:
            return envelope.body
        self.sealed += 1
        return open_from_wire(self.seal_keys, envelope.body).body

    async def close(self) -> None:
        """Nothing is open."""

    def names(self, target: str) -> list[str]:
        """The names of the records that came, in order."""
        return [event["subject"].split("/", 2)[2] for event in self.got.get(target, [])]

    def commands(self, target: str) -> list[str]:
        """What the aliases that came expand to, in order."""
        return [event["data"]["record"]["spec"]["command"] for event in self.got.get(target, [])]


class Stage:
    """A registry, its engine, and the workers' loop in the hands of the test."""

    def __init__(self, folder: Path) -> None:
        self.world = StageWorld()
        self.folder = folder
        self.targets = Targets()
        self.seal_key = new_wire_key(self.world)
        self.targets.seal_keys.append(parse_wire_key(self.seal_key))
        catalogue = load_catalogue()
        self.registry = SqliteRegistry.open(folder / "registry.db", catalogue, self.world)
        self.propagation = Database.open(folder / "propagation.db", "propagation")
        self.lanes = SqliteLanes(self.propagation)
        self.writer = GroupWriter(self.registry, catalogue)
        self.service = RegistryService(
            catalogue=catalogue,
            sealer=Sealer(Keyring.of(new_key(self.world)), bytes(32)),
            writer=self.writer,
            records=self.registry,
            log=self.registry,
            world=self.world,
        )
        self.settings = Settings(home=folder, retry=RetrySettings())
        self.engine: Engine
        self._jobs: set[asyncio.Task[None]] = set()

    async def start(self, **settings: Any) -> None:
        """A new daemon on the stores. Whatever the one before had in memory is gone, as after a kill."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self.settings = Settings(**{"home": self.folder, "retry": RetrySettings(), **settings})
        self.engine = Engine(self.service, self.lanes, {"webhook": self.targets}, self.settings)
        await self.engine.start()

    async def step(self) -> bool:
        """What the workers do once: plan, settle, start what may start, let it run. True: something moved."""
        while await self.engine.plan():
            pass
        moved = self.engine.unsettled
        if moved:
            await self.engine.settle()
        for job in self.engine.take():
            moved = True
            task = asyncio.get_running_loop().create_task(self.engine.run(job))
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)
        for _ in range(5):
            await asyncio.sleep(0)  # lets the attempts run; nothing here waits for time
        return moved

    async def settle(self) -> None:
        """Until nothing moves any more without time passing."""
        quiet = 0
        while quiet < 3:
            quiet = 0 if await self.step() else quiet + 1

    async def wait(self, seconds: float) -> None:
        """Let time pass, then everything that is due."""
        self.world.moment += timedelta(seconds=seconds)
        await self.settle()

    async def until(self, condition: Callable[[], bool], *, step_seconds: float = 1.0, steps: int = 500) -> None:
        """Let time pass in steps until the condition holds."""
        for _ in range(steps):
            await self.settle()
            if condition():
                return
            self.world.moment += timedelta(seconds=step_seconds)
        raise AssertionError("it never came to that")

    async def target(self, name: str, **delivery: Any) -> None:
        """A target by the name that its URL ends in."""
        spec = {
            "url": f"http://127.0.0.1:9/{name}",
            "protocol": "webhook",
            "delivery": {"transport": "webhook", "network": "loopback", **delivery},
        }
        await self.service.put({"kind": "endpoint", "namespace": "system", "name": name, "spec": spec}, actor=OPERATOR)

    async def route(self, name: str, *targets: str, **propagation: Any) -> None:
        """A route for all aliases to the targets, unless it says otherwise."""
        body = {"mode": "unidirectional", "selector": {"kinds": ["alias"]}, "targets": [f"system/{t}" for t in targets]}
        document = {
            "kind": "policy",
            "classification": "PropagationPolicy",
            "namespace": "system",
            "name": name,
            "spec": {"propagation": {**body, **propagation}},
        }
        await self.service.put(document, actor=OPERATOR)

    async def alias(self, name: str, command: str = "x") -> None:
        """Put an alias."""
        await self.service.put({"kind": "alias", "name": name, "spec": {"command": command}}, actor=OPERATOR)

    async def aliases(self, count: int, prefix: str = "a") -> None:
        """Put many aliases in one revision."""
        operations = [
            {"op": "put", "kind": "alias", "name": f"{prefix}{index:03}", "spec": {"command": str(index)}}
            for index in range(count)
        ]
        await self.service.batch(operations, actor=OPERATOR)

    async def event(self, source: str, payload: Any, *targets: str) -> None:
        """Send an event once."""
        key, audience = Key("service", "default", source), [f"system/{target}" for target in targets]
        session = self.world.new_id()
        await self.service.emit(key, payload, session=session, audience=audience, actor=OPERATOR)

    async def lane(self, target: str) -> Lane:
        """The stored lane of a target."""
        return next(lane for lane in await self.lanes.lanes() if lane.target_name == target)

    def sessions(self) -> dict[str, str]:
        """Session -> status, as scripts read it."""
        return dict(self.propagation.read("SELECT session_id, status FROM propagation_sessions"))

    async def close(self) -> None:
        """End what is under way, and close the files."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self.writer.close()
        self.registry.database.close()
        self.propagation.close()


@pytest.fixture
def stage_type() -> type[Stage]:
    """For tests that open several, or in a loop of their own."""
    return Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    opened = Stage(tmp_path)
    await opened.start()
    yield opened
    await opened.close()
