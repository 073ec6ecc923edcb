"""The watch contract against a model: any history of writes, read in any pieces, from any place, over any breaks.

The model is a list of what was done and a dictionary; it knows nothing of rings, batches or cursors. The same judge is
then shown stores that are broken on purpose, and must notice each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watching import ENGINES, OPERATOR, Watched

from universal_registry.api.watcher import Asked, Policy, Start, Watcher
from universal_registry.log.change import Op
from universal_registry.log.cursor import Cursor
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.watch import Passage

HISTORIES = {"sqlite": 1000, "postgres": 150}
NAMES = ("a", "b", "c")
TIERS = ("in", "out")
Value = tuple[str, str]
"""(tier, command)"""


class Write(NamedTuple):
    """One revision: (name, value), a value of None being a deletion."""

    parts: tuple[tuple[str, Value | None], ...]


class Read(NamedTuple):
    """Take frames, `rounds` times. `breaks`: then lose the connection, and go on from the last cursor that came."""

    rounds: int
    breaks: bool


class History(NamedTuple):
    before: tuple[Write, ...]
    start: str
    small: bool
    by_label: bool
    steps: tuple[Write | Read, ...]


_values = st.none() | st.tuples(st.sampled_from(TIERS), st.sampled_from("xyz"))
_parts = st.lists(st.tuples(st.sampled_from(NAMES), _values), min_size=1, max_size=3, unique_by=lambda part: part[0])
_writes = st.builds(Write, _parts.map(tuple))
_reads = st.builds(Read, st.integers(1, 3), st.booleans())
histories = st.builds(
    History,
    before=st.lists(_writes, max_size=6).map(tuple),
    start=st.sampled_from(("now", "beginning", "list")),
    small=st.booleans(),
    by_label=st.booleans(),
    steps=st.lists(st.one_of(_writes, _writes, _reads), max_size=14).map(tuple),
)


class Model:
    """What was done, and what a reader of the selection must have been told of it."""

    def __init__(self, by_label: bool) -> None:
        self.by_label = by_label
        self.state: dict[str, Value] = {}
        self.told: list[tuple[int, frozenset[tuple[str, str, str, str]]]] = []
        """For each revision of which something is told: (op, name, command after, command before)."""

    def selected(self, value: Value | None) -> bool:
        return value is not None and (not self.by_label or value[0] == "in")

    def visible(self) -> dict[str, str]:
        return {name: value[1] for name, value in self.state.items() if self.selected(value)}

    def write(self, revision: int, parts: Sequence[tuple[str, Value | None]]) -> None:
        told = set()
        for name, after in parts:
            before = self.state.pop(name, None)
            if after is not None:
                self.state[name] = after
            if before == after:
                continue
            if self.selected(after):
                assert after is not None
                told.add(("put", name, after[1], before[1] if before else ""))
            elif self.selected(before):
                assert before is not None
                told.add(("delete" if after is None else "left", name, "", before[1]))
        if told:
            self.told.append((revision, frozenset(told)))


class Judge:
    """Reads frames as a client would, and says what is wrong with them."""

    def __init__(self) -> None:
        self.got: list[tuple[int, frozenset[tuple[str, str, str, str]]]] = []
        self.state: dict[str, str] = {}
        self.place = -1
        self.cursor: str | None = None
        self.synced = False

    def frame(self, frame: dict[str, Any]) -> None:
        word = frame["type"]
        assert word in ("records", "synced", "changes", "bookmark"), frame
        if word == "records":
            self.state |= {each["name"]: each["spec"]["command"] for each in frame["records"]}
            return
        revision = int(frame["cursor"].split(".")[1])
        if word == "changes":
            assert revision > self.place, "a revision at or before a place that was passed already"
            assert frame["revision"] == revision
            told = set()
            for event in frame["events"]:
                assert event["revision"] == revision or frame.get("coalesced")
                after = event.get("record", {}).get("spec", {}).get("command", "")
                told.add(
                    (event["op"], event["name"], after, event.get("previous", {}).get("spec", {}).get("command", ""))
                )
                if event["op"] == "put":
                    self.state[event["name"]] = after
                else:
                    self.state.pop(event["name"], None)
            self.got.append((revision, frozenset(told)))
        assert revision >= self.place, "a cursor behind an earlier one"
        self.place, self.cursor = revision, frame["cursor"]
        self.synced = self.synced or word == "synced"

    def verdict(self, model: Model, since: int) -> None:
        """`since`: the revision behind which changes are told."""
        assert self.got == [each for each in model.told if each[0] > since]
        assert self.state == model.visible()


class Bench:
    """One store for all histories, each in a namespace of its own."""

    def __init__(self, watched: Watched, run: Callable[[Any], Any]) -> None:
        self.watched = watched
        self.run = run
        self._numbers = count()

    async def play(self, history: History) -> None:
        namespace = f"h{next(self._numbers)}"
        model, judge = Model(history.by_label), Judge()
        for each in history.before:
            await self._write(namespace, model, each)
        terms = f"kind=alias,namespace={namespace}" + (",labels.tier=in" if history.by_label else "")
        selector = parse_selector(terms, self.watched.service.catalogue)
        hub = self.watched.small if history.small else self.watched.hub
        since = (await self.watched.service.log.head()).revision if history.start == "now" else 0
        judge.state = model.visible() if history.start == "now" else {}
        watcher = await hub.open(Asked(selector=selector, start=Start(history.start)))
        if history.start == "list":
            while not judge.synced:
                await self._read(watcher, judge)
            since = judge.place
            assert judge.state == model.visible(), "the list is not what is there"
        for step in history.steps:
            if isinstance(step, Write):
                await self._write(namespace, model, step)
                continue
            for _ in range(step.rounds):
                await self._read(watcher, judge)
            if step.breaks and judge.cursor is not None:
                await watcher.close()
                incarnation, revision, hash8 = judge.cursor.split(".")
                watcher = await hub.open(Asked(selector=selector, start=Cursor(incarnation, int(revision), hash8)))
        head = (await self.watched.service.log.head()).revision
        while watcher.cursor.revision < head:
            await self._read(watcher, judge)
        await watcher.close()
        judge.verdict(model, since)

    @staticmethod
    async def _read(watcher: Watcher, judge: Judge) -> None:
        for frame in await watcher.next(wait=0):
            judge.frame(orjson.loads(frame.data))

    async def _write(self, namespace: str, model: Model, write: Write) -> None:
        parts = [(name, value) for name, value in write.parts if value is not None or name in model.state]
        operations = [_operation(namespace, name, value) for name, value in parts]
        if operations:
            written = await self.watched.service.batch(operations, actor=OPERATOR)
            model.write(written.revision, parts)


def _operation(namespace: str, name: str, value: Value | None) -> dict[str, Any]:
    key = {"kind": "alias", "namespace": namespace, "name": name}
    if value is None:
        return {"op": "delete", **key}
    return {"op": "put", **key, "labels": {"tier": value[0]}, "spec": {"command": value[1]}}


@pytest.fixture(params=ENGINES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    # Thousands of fsyncs: in memory, where there is such a place. What a kill does is asked of real daemons.
    memory = Path("/dev/shm")
    folder = memory if request.param == "sqlite" and memory.is_dir() else tmp_path
    with asyncio.Runner() as runner, TemporaryDirectory(dir=folder) as place:
        stack = AsyncExitStack()
        made = Bench(runner.run(stack.enter_async_context(ENGINES[request.param](Path(place)))), runner.run)
        made.histories = HISTORIES[request.param]  # type: ignore[attr-defined]
        yield made
        runner.run(stack.aclose())


def test_every_history_is_told_as_it_was(bench: Bench) -> None:
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


def _elsewhere(passage: Passage) -> Passage:
    return Passage(msgspec.structs.replace(passage.change, namespace="elsewhere"), passage.before)


def _early_bookmark(passages: Sequence[Passage]) -> list[Passage]:
    """The place moves past a line that is not shown: a bookmark ahead of its events."""
    return [_elsewhere(each) if each.change.revision % 2 else each for each in passages]


def _stale_cache(passages: Sequence[Passage]) -> list[Passage]:
    """A line is shown with the value before it."""
    return [
        Passage(msgspec.structs.replace(each.change, body=each.before), each.before) if each.before else each
        for each in passages
    ]


def _lost_tombstone(passages: Sequence[Passage]) -> list[Passage]:
    return [_elsewhere(each) if each.change.op is Op.DELETE else each for each in passages]


SPOILERS = {"early bookmark": _early_bookmark, "stale cache": _stale_cache, "lost tombstone": _lost_tombstone}
_ONE, _TWO, _GONE = (Write((("a", value),)) for value in (("in", "x"), ("in", "y"), None))


@pytest.mark.parametrize("small", [False, True], ids=["from the writer", "read"])
@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_broken_store_is_noticed(bench: Bench, spoiler: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History((), "beginning", small, False, (_ONE, _TWO, _GONE, _ONE, _TWO, _ONE, _TWO, _GONE))
    bench.run(bench.play(history))
    log, newest = bench.watched.service.log, bench.watched.service.newest
    read, known = log.passages, newest.coming

    async def spoiled(*args: Any, **more: Any) -> list[Passage]:
        return SPOILERS[spoiler](await read(*args, **more))

    if small:
        monkeypatch.setattr(log, "passages", spoiled)
    else:
        monkeypatch.setattr(newest, "coming", lambda: SPOILERS[spoiler](known()))
    with pytest.raises(AssertionError):
        bench.run(bench.play(history))


def test_the_judge_notices_what_comes_twice_or_out_of_order() -> None:
    frame = {"type": "changes", "cursor": "000000000000.5.00000000", "revision": 5, "events": []}
    judge = Judge()
    judge.frame(frame)
    with pytest.raises(AssertionError):
        judge.frame(frame)
    with pytest.raises(AssertionError):
        judge.frame({"type": "bookmark", "cursor": "000000000000.4.00000000"})


def test_who_coalesces_ends_where_everybody_does(bench: Bench) -> None:
    """COALESCE may leave states out, never the last one of a record."""

    async def play() -> None:
        watched = bench.watched
        for at in range(300):
            await watched.put(f"n{at % 5}", str(at))
        await watched.delete("n3")
        watcher = await watched.small.open(Asked(start=Start.BEGINNING, policy=Policy.COALESCE))
        judge = Judge()
        head = (await watched.service.log.head()).revision
        while watcher.cursor.revision < head:
            await bench._read(watcher, judge)
        assert judge.state == {"n0": "295", "n1": "296", "n2": "297", "n4": "299"}

    bench.run(play())
