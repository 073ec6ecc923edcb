"""Compaction against a model: any history, compacted at any time and place, read by anybody from anywhere.

A reader applies what he is told to a copy of his own. Whatever compaction took, the copy must come out as what is
there, or he must have been told that he cannot go on. A reader who was waited for must also have been told everything.
Then the same with compactions that are broken on purpose, each of which must be noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import orjson
import pytest
from compacting import compact, history_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watching import ENGINES, OPERATOR, Watched

from universal_registry.api.watcher import Asked, Policy, Start
from universal_registry.kernel.errors import CursorGone, RegistryError
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.registry.check import check_registry
from universal_registry.registry.retention import Reader
from universal_registry.registry.selector import parse_selector
from universal_registry.storage.registry_sqlite import SqliteRegistry

HISTORIES = {"sqlite": 500, "postgres": 60}
NAMES = ("a", "b", "c")


class Write(NamedTuple):
    """Revisions, one for each: (name, tier, command); a command of None being a deletion."""

    parts: tuple[tuple[str, str, str | None], ...]


class Compact(NamedTuple):
    """To so many revisions before the head. `finish`: do all the work, or only a step of it."""

    values: int
    lines: int
    finish: bool


class Read(NamedTuple):
    """A reader goes on for some rounds from where he was, over a connection of his own."""

    who: int
    rounds: int


class History(NamedTuple):
    by_label: bool
    policies: tuple[Policy, ...]
    awaited: tuple[bool, ...]
    steps: tuple[Write | Compact | Read, ...]


_parts = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(("in", "out")), st.none() | st.sampled_from("xyz")),
    min_size=1,
    max_size=5,
)
_writes = st.builds(Write, _parts.map(tuple))
_compacts = st.builds(Compact, st.integers(1, 4), st.integers(0, 3), st.booleans())
_reads = st.builds(Read, st.integers(0, 2), st.integers(1, 3))
histories = st.builds(
    History,
    by_label=st.booleans(),
    policies=st.tuples(*[st.sampled_from((Policy.WAIT, Policy.COALESCE))] * 3),
    awaited=st.tuples(*[st.booleans()] * 3),
    steps=st.lists(st.one_of(_writes, _writes, _compacts, _reads), min_size=3, max_size=16).map(tuple),
)


class Model:
    """What is there, and what was done."""

    def __init__(self, by_label: bool) -> None:
        self.by_label = by_label
        self.state: dict[str, tuple[str, str]] = {}
        self.told: list[tuple[str, str, str]] = []
        """(op, name, command) of everything that a reader from the beginning is told."""

    def selected(self, value: tuple[str, str] | None) -> bool:
        return value is not None and (not self.by_label or value[0] == "in")

    def visible(self) -> dict[str, str]:
        return {name: value[1] for name, value in self.state.items() if self.selected(value)}

    def write(self, name: str, after: tuple[str, str] | None) -> None:
        before = self.state.pop(name, None)
        if after is not None:
            self.state[name] = after
        if after is not None and self.selected(after):
            self.told.append(("put", name, after[1]))
        elif self.selected(before):
            self.told.append(("delete" if after is None else "left", name, ""))


class Follower:
    """A reader with a copy. `awaited`: compaction knows of him."""

    def __init__(self, start: Cursor, policy: Policy, awaited: bool) -> None:
        self.place: Cursor | None = start
        self.policy = policy
        self.awaited = awaited
        self.copy: dict[str, str] = {}
        self.told: list[tuple[str, str, str]] = []
        self.began_anew = False

    def frame(self, frame: dict[str, Any]) -> None:
        word = frame["type"]
        assert word in ("records", "synced", "changes", "bookmark", "end"), frame
        if word == "end":
            assert frame["code"] == "cursor-gone", frame
            self.place = None
            return
        for record in frame.get("records", ()):
            self.copy[record["name"]] = record["spec"]["command"]
        for event in frame.get("events", ()):
            command = event.get("record", {}).get("spec", {}).get("command", "")
            self.told.append((event["op"], event["name"], command))
            if event["op"] == "put":
                self.copy[event["name"]] = command
            else:
                self.copy.pop(event["name"], None)
        if "cursor" in frame:
            self.place = parse_cursor(frame["cursor"])


class Bench:
    """One store for all histories, each in a namespace of its own."""

    def __init__(self, watched: Watched, run: Callable[[Any], Any]) -> None:
        self.watched = watched
        self.run = run
        self.spoil: Callable[[int], Any] | None = None
        self.waits = True
        self._numbers = count()

    async def play(self, history: History) -> None:
        namespace, model = f"h{next(self._numbers)}", Model(history.by_label)
        terms = f"kind=alias,namespace={namespace}" + (",labels.tier=in" if history.by_label else "")
        selector = parse_selector(terms, self.watched.service.catalogue)
        await self.watched.put("first", namespace)  # so that nobody begins behind another history's horizon
        start = (await self.watched.service.log.head()).cursor
        followers = [
            Follower(start, policy, awaited) for policy, awaited in zip(history.policies, history.awaited, strict=True)
        ]
        for step in history.steps:
            match step:
                case Write(parts):
                    for part in parts:
                        await self._write(namespace, model, *part)
                case Compact():
                    await self._compact(step, start.revision, followers)
                case Read(who, rounds):
                    await self._read(followers[who], selector, rounds)
        head = (await self.watched.service.log.head()).revision
        for follower in followers:
            while follower.place is None or follower.place.revision < head:
                await self._read(follower, selector, 1)
            assert follower.copy == model.visible()
            if follower.awaited:
                assert not follower.began_anew
                if follower.policy is Policy.WAIT:
                    assert follower.told == model.told
        service = self.watched.service
        await check_registry(service.records, service.log, service.event_commitment)

    async def _read(self, follower: Follower, selector: Any, rounds: int) -> None:
        asked = Asked(selector=selector, start=follower.place or Start.LIST, policy=follower.policy)
        try:
            watcher = await self.watched.small.open(asked)
        except CursorGone:
            follower.place = None
            return
        if follower.place is None:
            follower.began_anew, follower.copy = True, {}
            while follower.place is None:
                for frame in await watcher.next(wait=0):
                    follower.frame(orjson.loads(frame.data))
        for _ in range(rounds):
            for frame in await watcher.next(wait=0):
                follower.frame(orjson.loads(frame.data))
        await watcher.close()

    async def _compact(self, step: Compact, first: int, followers: list[Follower]) -> None:
        head = (await self.watched.service.log.head()).revision
        values, lines = max(first, head - step.values), max(first, head - step.values - step.lines)
        if values >= head:
            return
        waited = [each for each in followers if each.awaited and each.place is not None and self.waits]
        readers = [Reader("follower", each.place.revision, lasting=True) for each in waited if each.place]
        if step.finish:
            await compact(self.watched, values=values, lines=lines, readers=readers)
        else:
            store = history_of(self.watched)
            await store.drop_values(2)
            await store.remove_lines(3)
        if self.spoil is not None:
            await self.spoil(first)

    async def _write(self, namespace: str, model: Model, name: str, tier: str, command: str | None) -> None:
        before, after = model.state.get(name), None if command is None else (tier, command)
        if before == after:
            return
        key = {"kind": "alias", "namespace": namespace, "name": name}
        put = {"op": "put", **key, "labels": {"tier": tier}, "spec": {"command": command}}
        await self.watched.service.batch([put if after else {"op": "delete", **key}], actor=OPERATOR)
        model.write(name, after)


@pytest.fixture(params=ENGINES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    memory = Path("/dev/shm")
    folder = memory if request.param == "sqlite" and memory.is_dir() else tmp_path
    with asyncio.Runner() as runner, TemporaryDirectory(dir=folder) as place:
        stack = AsyncExitStack()
        made = Bench(runner.run(stack.enter_async_context(ENGINES[request.param](Path(place)))), runner.run)
        made.histories = HISTORIES[request.param]  # type: ignore[attr-defined]
        yield made
        runner.run(stack.aclose())


def test_whatever_goes_every_copy_comes_out_right(bench: Bench) -> None:
    @settings(
        max_examples=bench.histories,  # type: ignore[attr-defined]
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(histories)
    def held(history: History) -> None:
        bench.run(bench.play(history))

    held()


# --- broken on purpose ----------------------------------------------------------------------------------------------


_BROKEN = {
    "a lost tombstone": "DELETE FROM changes WHERE op = 'delete' AND revision > {first}",
    "the newest value dropped too": "UPDATE changes SET body = NULL WHERE op = 'put' AND revision > {first}",
    "lines gone before the horizon moves": "DELETE FROM changes WHERE revision > {first} AND revision % 2 = 0",
}
_WRITES = Write((("a", "in", "x"), ("b", "in", "x"), ("a", "in", "y"), ("b", "in", None), ("c", "in", "x")))
_ON = Write((("a", "in", "z"), ("c", "in", "y")))
_STORY = History(
    False,
    (Policy.WAIT, Policy.COALESCE, Policy.WAIT),
    (True, False, False),
    (
        _WRITES, Read(0, 3), Read(1, 3), _WRITES, Compact(1, 9, True), Read(2, 1),
        _ON, Compact(1, 2, True), Read(1, 1), _ON,
    ),
)  # fmt: skip


def test_a_story_that_is_not_broken(bench: Bench) -> None:
    bench.run(bench.play(_STORY))


@pytest.mark.parametrize("how", _BROKEN)
def test_a_broken_compaction_is_noticed(bench: Bench, how: str) -> None:
    async def spoil(first: int) -> None:
        sql = _BROKEN[how].format(first=first)
        store: Any = bench.watched.service.log
        if isinstance(store, SqliteRegistry):
            async with store.database.transaction():
                store.database.execute("INSERT INTO write_guard (open) VALUES (1)")
                store.database.execute(sql)
                store.database.execute("DELETE FROM write_guard")
            store.lines_changed()
            return
        async with store.database.transaction() as connection:
            await connection.execute("SELECT set_config('ureg.write', 'on', true)")
            await connection.execute(sql)

    bench.spoil = spoil
    with pytest.raises((AssertionError, RegistryError)):
        bench.run(bench.play(_STORY))


def test_compaction_past_a_reader_who_is_waited_for_is_noticed(bench: Bench) -> None:
    bench.waits = False
    with pytest.raises(AssertionError):
        bench.run(bench.play(_STORY._replace(awaited=(True, True, True))))
