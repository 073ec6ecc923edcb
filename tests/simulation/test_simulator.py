"""The product's own sync, in a simulated world where much goes wrong; and proof that the simulator would notice."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pgserver
import pytest
from simulated_postgres import PostgresEngine

from universal_registry.kernel.ids import Key
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.storage import sync_store
from universal_registry.storage.sync_machines import SqliteEngine, Workshop, catalogue_of_simulation
from universal_registry.sync import ledger, mending, merge, session
from universal_registry.sync.audience import Reach, mark_of
from universal_registry.sync.greeting import Link
from universal_registry.sync.identity import Renewal
from universal_registry.sync.oracle import Violation
from universal_registry.sync.protocol import Hello
from universal_registry.sync.simulator import Report, Simulation, simulate
from universal_registry.sync.simworld import Machines
from universal_registry.sync.version import State, Vector, Version, covers

CATALOGUE = catalogue_of_simulation(load_catalogue())
SEEDS = 1000
"""`ureg selftest sync --seed 1000 --seeds 5000` runs others."""
PER_TEST = 25
POSTGRES_SEEDS = 3
MOST_MUTANT_SEEDS = 200
_MEMORY = Path("/dev/shm")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Workshop]:
    """In memory where that can be: a run makes and removes some dozen files."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else tmp_path) as folder:
        yield Workshop(Path(folder), SqliteEngine(Path(folder) / "template.db", CATALOGUE), CATALOGUE)


async def _simulate(seeds: range, machines: Machines) -> None:
    for seed in seeds:
        await simulate(seed, machines)


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
async def test_nothing_is_lost_and_all_converge(first: int, machines: Machines) -> None:
    await _simulate(range(first, first + PER_TEST), machines)


async def test_so_it_is_on_postgresql(postgres: pgserver.Server, tmp_path: Path) -> None:
    machines = Workshop(tmp_path, PostgresEngine(postgres, CATALOGUE), CATALOGUE)
    await _simulate(range(POSTGRES_SEEDS), machines)


async def test_a_seed_replays(machines: Machines) -> None:
    assert await simulate(7, machines) == await simulate(7, machines)


def test_no_daemon_loads_the_simulator() -> None:
    loads = "import sys, universal_registry.app, universal_registry.runner.daemon; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "universal_registry.app" in loaded
    assert not [name for name in loaded if "sync.sim" in name or "sync.oracle" in name or "sync_machines" in name]


async def test_every_seed_does_what_it_is_for(machines: Machines) -> None:
    """Copies are found out, frames damaged, nodes restored, audiences changed: or nothing was proved."""
    reports: list[Report] = [await Simulation(seed, machines).run() for seed in range(20)]
    assert sum(report.refused_clones for report in reports) > 5
    assert sum(report.damaged for report in reports) > 50
    assert sum(report.restored for report in reports) > 10
    assert sum(report.limited for report in reports) > 2


# --- mutants of the design ------------------------------------------------------------------------------------------

_merged, _take, _deleted, _written = merge.merged, ledger.take, merge.deleted, merge.written
_renewed = sync_store.renewed


def no_context(local: State, vector: Vector, incoming: State, theirs: Vector, *_: Any) -> State:
    """What was seen of a record beyond the vector is not kept."""
    return State(_merged(local, vector, incoming, theirs).fields)


def vector_early(identity: Any, states: Any, records: Any, vector: Vector, *, joins: bool) -> Any:
    """The vector moves with each batch."""
    del joins
    return _take(identity, states, records, vector, joins=True)


def same_epoch(identity: Any, *, epoch: str, store: str) -> Any:
    """A restored store goes on writing under its old identity."""
    del epoch
    return _renewed(identity, epoch=identity.epoch, store=store)


def same_store(identity: Any, *, epoch: str, store: str) -> Any:
    """A restored store goes on with its old feed."""
    del store
    return _renewed(identity, epoch=epoch, store=identity.store)


def no_marker(*_: Any, **__: Any) -> Renewal:
    """Nobody notices that a store was restored."""
    return Renewal.NO


_feed = sync_store.Replica.feed


async def no_floor(self: sync_store.Replica, scope: Any, after: int, seen: Vector, max_bytes: int) -> Any:
    """A peer that was away for longer than tombstones are kept takes over the vector all the same."""
    return (await _feed(self, scope, after, seen, max_bytes))._replace(floor=0)


def last_writer_wins(local: State, vector: Vector, incoming: State, theirs: Vector, *_: Any) -> State:
    """Of concurrent values only the one that is shown is kept."""
    made = _merged(local, vector, incoming, theirs)
    return State({path: versions[:1] for path, versions in made.fields.items()}, made.context)


def local_order(versions: Sequence[Version]) -> tuple[Version, ...]:
    """What came last is shown."""
    return tuple(reversed(versions))


def keep_what_was_replaced(local: State, vector: Vector, incoming: State, theirs: Vector, *_: Any) -> State:
    """An incoming version is taken although it was replaced here."""
    made = _merged(local, vector, incoming, theirs)
    fields = dict(made.fields)
    for path, versions in incoming.fields.items():
        fields[path] = merge.in_order(list({*fields.get(path, ()), *versions}))
    return State(fields, made.context)


def incoming_wins(local: State, vector: Vector, incoming: State, theirs: Vector, *_: Any) -> State:
    """What the other side does not have is dropped, seen or not."""
    return State(incoming.fields, _merged(local, vector, incoming, theirs).context)


def union(local: State, vector: Vector, incoming: State, theirs: Vector, *_: Any) -> State:
    """Nothing is ever dropped by a merge."""
    made = _merged(local, vector, incoming, theirs)
    fields = {
        path: merge.in_order(list({*local.fields.get(path, ()), *made.fields.get(path, ())}))
        for path in local.fields.keys() | made.fields.keys()
    }
    return State(fields, made.context)


def any_is_seen(state: State, vector: Vector) -> bool:
    """A record is not sent when one of its versions is known."""
    return any(covers(vector, version) for versions in state.fields.values() for version in versions)


def always_changed(before: State, after: State) -> bool:
    """Whatever arrives is passed on."""
    return before is not after


def delete_keeps_fields(state: State, writer: Any) -> State:
    """A deletion leaves the fields that it saw."""
    return State({**state.fields, **_deleted(state, writer).fields}, state.context)


def write_beside(state: State, leaves: Any, writer: Any, prefer: str = "") -> State:
    """A write does not replace what its author saw."""
    made = _written(state, leaves, writer, prefer)
    fields = {
        path: merge.in_order(list({*versions, *state.fields.get(path, ())})) for path, versions in made.fields.items()
    }
    return State(fields, made.context)


def no_comparison(*_: Any) -> list[Any]:
    """Unequal roots lead to nothing."""
    return []


def no_audience(reach: Reach, key: Key) -> bool:
    """Nodes pass on what the next one may not have."""
    return reach.within.covers(key)


def whole_without_all(link: Link, theirs: tuple[str, ...], ours: tuple[str, ...]) -> bool:
    """A link that leaves something out shares vectors all the same."""
    return theirs == ours == (link.text,)


_refusal, _peer = session.refusal, sync_store.Replica.peer


def other_audiences_are_no_matter(hello: Hello, link: Link, identity: Any, others: Any) -> Any:
    """A link between nodes that were told differently who may have what."""
    refused = _refusal(hello, link, identity, others)
    return None if refused is not None and refused.code == "audiences" else refused


async def feed_goes_on(self: sync_store.Replica, node: str) -> Any:
    """When others may have something, what was left out before is not sent."""
    return msgspec.structs.replace(await _peer(self, node), audiences=mark_of((await self.identity()).audiences))


_batch = session.Session._batch


async def out_of_order(self: session.Session, batch: Any) -> Any:
    """A batch is taken though the one before it has not come."""
    self.peer = msgspec.structs.replace(self.peer, cursor=max(self.peer.cursor, batch.start))
    return await _batch(self, batch)


class Mutant(NamedTuple):
    """`first`: a seed that shows it, where few do."""

    module: Any
    name: str
    wrong: Callable[..., Any]
    first: int = 0


MUTANTS = {
    "no context": Mutant(ledger, "merged", no_context),
    "vector early": Mutant(ledger, "take", vector_early),
    "same epoch": Mutant(sync_store, "renewed", same_epoch),
    "same store id": Mutant(sync_store, "renewed", same_store),
    "restores unnoticed": Mutant(sync_store, "renewal_at_start", no_marker),
    "no floor": Mutant(sync_store.Replica, "feed", no_floor, first=308),
    "last writer wins": Mutant(ledger, "merged", last_writer_wins),
    "local order": Mutant(merge, "in_order", local_order),
    "keep what was replaced": Mutant(ledger, "merged", keep_what_was_replaced),
    "incoming wins": Mutant(ledger, "merged", incoming_wins),
    "union": Mutant(ledger, "merged", union),
    "one known, all known": Mutant(sync_store, "is_seen", any_is_seen),
    "echo": Mutant(ledger, "is_changed", always_changed),
    "deletion keeps fields": Mutant(ledger, "deleted", delete_keeps_fields),
    "write beside": Mutant(ledger, "written", write_beside),
    "no comparison": Mutant(mending, "narrowed", no_comparison, first=128),
    "no audience": Mutant(Reach, "covers", no_audience),
    "whole without all": Mutant(session, "is_whole", whole_without_all),
    "other audiences": Mutant(session, "refusal", other_audiences_are_no_matter),
    "feed goes on": Mutant(sync_store.Replica, "peer", feed_goes_on),
    "out of order": Mutant(session.Session, "_batch", out_of_order),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_every_mutant_is_caught(name: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    monkeypatch.setattr(mutant.module, mutant.name, mutant.wrong)
    with pytest.raises(Violation, match="seed"):
        await _simulate(range(mutant.first, mutant.first + MOST_MUTANT_SEEDS), machines)
