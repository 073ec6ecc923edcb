"""Studios on each engine: bindings, the four directions, pushes merged by field, and the log of it under its names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pgserver
import pytest
import syncing
from syncing import OPERATOR, Node

from universal_registry.kernel.errors import Conflict, CursorMismatch, Invalid, NotFound, UsageError
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.cursor import Cursor
from universal_registry.propagation.studio.binding import Direction
from universal_registry.propagation.studio.exchange import Pushed, StudioExchange, Told
from universal_registry.propagation.studio.ports import MOST_KEPT, Exchanged, SyncLog, SyncStatus
from universal_registry.registry.consumers import Consumers
from universal_registry.storage.consumers_postgres import PgConsumers
from universal_registry.storage.consumers_sqlite import SqliteConsumers
from universal_registry.storage.database import Database
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.studio_postgres import PgStudio
from universal_registry.storage.studio_sqlite import SqliteStudio

WORLD = SystemWorld()
NAMED = (
    "SELECT registry_entry_id, nexus_component_id, sync_direction, payload, status FROM {}nexus_sync_log"
    " ORDER BY created_at, payload, nexus_component_id"
)


class Bound:
    """A registry with studios. `query`: what plain SQL reads."""

    def __init__(self, node: Node, consumers: Any, log: SyncLog, query: Callable[[str], Any]) -> None:
        self.node = node
        self.log = log
        self.query = query
        self.consumers = Consumers(consumers, node.store, WORLD)
        self.exchange = StudioExchange(node.service, self.consumers, log, WORLD)

    async def bind(self, entry: str, *components: str, to: Direction, studio: str = "nexus") -> dict[str, Any]:
        return await self.exchange.bind(
            entry, list(components), direction=to, studio=studio, namespace=None, protocol="", actor=OPERATOR
        )

    async def sync(self, studio: str = "nexus", cursor: Cursor | None = None, limit: int = 100) -> Told:
        after = await self.exchange.start(studio, cursor, actor=OPERATOR)
        return await self.exchange.pull(studio, after, limit)

    async def push(self, *pushes: Pushed, studio: str = "nexus") -> list[dict[str, Any]]:
        return await self.exchange.push(studio, pushes, actor=OPERATOR)


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Bound]:
    database = Database.open(folder / "propagation.db", "propagation")

    async def query(sql: str) -> Any:
        return [tuple(row) for row in database.read(sql.format(""))]

    try:
        async with syncing.sqlite(folder) as node:
            yield Bound(node, SqliteConsumers(node.store.database), SqliteStudio(database), query)
    finally:
        database.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Bound]:
    async with syncing.postgres(folder) as node:
        database = await PgDatabase.open(pgserver.database_of(folder), "propagation", WORLD)

        async def query(sql: str) -> Any:
            return [tuple(row) for row in await database.fetch(sql.format("propagation."))]

        try:
            yield Bound(node, PgConsumers(node.store.database), PgStudio(database), query)
        finally:
            await database.close()


ENGINES: dict[str, Callable[[Path], AbstractAsyncContextManager[Bound]]] = {"sqlite": sqlite, "postgres": postgres}


@pytest.fixture(params=ENGINES)
async def bound(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bound]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    async with ENGINES[request.param](tmp_path) as found:
        yield found


def said(told: Told) -> list[tuple[str, str, Any]]:
    return [(each["op"], each["component"], each.get("record", {}).get("spec")) for each in told.changes]


async def test_all_that_is_bound_then_what_changes(bound: Bound) -> None:
    await bound.node.set("gs", command="git status")
    await bound.node.set("other", command="x")
    made = await bound.bind("gs", "comp-1", to=Direction.UNIDIRECTIONAL)
    assert (made["entry"], made["effect"], made["warnings"]) == ("alias/default/gs", "created", [])
    first = await bound.sync()
    assert said(first) == [("put", "comp-1", {"command": "git status"})]
    assert said(await bound.sync()) == said(first), "what was not acknowledged comes again"
    second = await bound.sync(cursor=first.cursor)
    assert (second.changes, second.cursor) == ([], first.cursor)
    await bound.node.set("gs", command="git status -sb")
    await bound.node.set("other", command="y")
    third = await bound.sync()
    assert said(third) == [("put", "comp-1", {"command": "git status -sb"})]
    rows = [tuple(row) for row in await bound.query(NAMED)]
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("alias/default/gs", "comp-1", "unidirectional", "executed"),
        ("alias/default/gs", "comp-1", "unidirectional", "pending"),
    ]
    assert all(row[3].startswith("sealed:log:") for row in rows)
    await bound.sync(cursor=third.cursor)
    assert {row[4] for row in await bound.query(NAMED)} == {"executed"}
    assert (
        await bound.exchange.history("alias/default/gs", None, 1)
        == [each for each in await bound.exchange.history(None, "nexus", 10) if each.reason == "put"][:1]
    )


async def test_a_new_binding_brings_the_record_as_it_is(bound: Bound) -> None:
    await bound.node.set("gs", command="1")
    start = await bound.sync()
    assert start.changes == []
    await bound.bind("alias/gs", "late", to=Direction.BIDIRECTIONAL)
    await bound.bind("alias/later", "later", to=Direction.BIDIRECTIONAL)
    told = await bound.sync(cursor=start.cursor)
    assert said(told) == [("put", "late", {"command": "1"})]
    await bound.node.set("later", command="2")
    told = await bound.sync(cursor=told.cursor)
    assert said(told) == [("put", "later", {"command": "2"})]
    await bound.node.service.delete(syncing.GS, actor=OPERATOR)
    told = await bound.sync(cursor=told.cursor)
    assert said(told) == [("delete", "late", None)]
    (late,) = [each for each in await bound.exchange.bindings() if each.components == ("late",)]
    await bound.exchange.unbind(late.name, actor=OPERATOR)
    assert said(await bound.sync(cursor=told.cursor)) == [("unbound", "late", None)]
    with pytest.raises(NotFound):
        await bound.exchange.unbind(late.name, actor=OPERATOR)


async def test_multicast_and_broadcast(bound: Bound) -> None:
    await bound.node.set("gs", command="1")
    with pytest.raises(UsageError):
        await bound.bind("gs", "a", "b", to=Direction.BIDIRECTIONAL)
    await bound.bind("gs", "a", "b", "a", to=Direction.MULTICAST)
    await bound.bind("gs", "all", to=Direction.BROADCAST, studio="one")
    assert sorted(component for _, component, _ in said(await bound.sync("nexus"))) == ["a", "all", "b"]
    assert [component for _, component, _ in said(await bound.sync("one"))] == ["all"]
    assert [component for _, component, _ in said(await bound.sync("come-later"))] == ["all"]
    for component in ("a", "all"):
        (answer,) = await bound.push(
            Pushed(component, {"command": "2"}, 1), studio="nexus" if component == "a" else "one"
        )
        assert answer["status"] == "refused"
    assert await bound.node.spec("gs") == {"command": "1"}


async def test_pushes_are_merged_by_field(bound: Bound) -> None:
    await bound.node.set("gs", command="1", tags=["a"])
    await bound.bind("gs", "c", to=Direction.BIDIRECTIONAL)
    told = await bound.sync()
    base = told.changes[0]["revision"]
    await bound.node.set("gs", tags=["b"])
    pushed = Pushed("c", {"command": "2", "tags": ["a"]}, base)
    (answer,) = await bound.push(pushed)
    assert (answer["status"], answer["effect"]) == ("ok", "updated")
    assert await bound.node.spec("gs") == {"command": "2", "tags": ["b"]}
    (again,) = await bound.push(pushed)
    assert (again["status"], again["effect"]) == ("ok", "unchanged"), "an answer that was lost does no harm"
    (lost,) = await bound.push(Pushed("c", {"command": "3", "tags": ["c"]}, base))
    assert (lost["status"], lost["fields"]) == ("conflict", ["command", "tags"])
    assert lost["record"]["spec"] == {"command": "2", "tags": ["b"]}
    (solved,) = await bound.push(Pushed("c", {"command": "3"}, lost["revision"]))
    assert solved["effect"] == "updated"
    assert await bound.node.spec("gs") == {"command": "3"}, "a field that the studio left out is removed"
    assert [row[4] for row in await bound.query(NAMED)].count("failed") == 1
    statuses = [(row.way, str(row.status)) for row in await bound.exchange.history(None, None, 10)]
    assert statuses == [
        ("push", "executed"),
        ("push", "failed"),
        ("push", "executed"),
        ("push", "executed"),
        ("pull", "pending"),
    ]


async def test_pushes_that_make_and_remove(bound: Bound) -> None:
    await bound.bind("alias/new", "n", to=Direction.BIDIRECTIONAL)
    made, unknown, wrong = await bound.push(
        Pushed("n", {"command": "1"}), Pushed("nobody", {"x": 1}), Pushed("n", {"command": 5}, None)
    )
    assert (made["status"], made["effect"]) == ("ok", "created")
    assert unknown["status"] == "not-found"
    assert wrong["status"] == "conflict"
    (invalid,) = await bound.push(Pushed("n", {"command": 5}, made["revision"]))
    assert invalid["status"] == "invalid"
    await bound.node.set("new", command="2")
    (stale,) = await bound.push(Pushed("n", delete=True, base=made["revision"]))
    assert stale["status"] == "conflict"
    (gone,) = await bound.push(Pushed("n", delete=True, base=stale["revision"]))
    assert gone["effect"] == "deleted"
    (seen,) = await bound.push(Pushed("n", {"command": "3"}, stale["revision"]))
    assert seen["status"] == "conflict", "it was removed here: making it anew is for somebody to say"
    assert await bound.node.spec("new") is None


async def test_what_cannot_be_bound(bound: Bound) -> None:
    with pytest.raises(NotFound):
        await bound.bind("nothing", "c", to=Direction.BIDIRECTIONAL)
    for entry, component, studio in (
        ("alias/x", "", "nexus"),
        ("alias/x", "a\nb", "nexus"),
        ("alias/x", "c", "Bad Name"),
    ):
        with pytest.raises(Invalid):
            await bound.bind(entry, component, to=Direction.BIDIRECTIONAL, studio=studio)
    made = await bound.bind("alias/x", "c", to=Direction.BIDIRECTIONAL)
    assert "does not exist yet" in made["warnings"][0]
    again = await bound.bind("alias/x", "c", to=Direction.BIDIRECTIONAL)
    assert (again["effect"], again["binding"]) == ("unchanged", made["binding"])
    with pytest.raises(Conflict, match="is alias/default/x already"):
        await bound.bind("alias/y", "b", "c", to=Direction.MULTICAST)
    await bound.bind("alias/y", "c", to=Direction.UNIDIRECTIONAL, studio="another")
    other = await bound.bind("alias/x", "c", to=Direction.UNIDIRECTIONAL)
    assert (other["effect"], other["binding"]) == ("updated", made["binding"])


async def test_a_cursor_of_another_history_is_refused(bound: Bound) -> None:
    head = (await bound.node.service.log.head()).cursor
    with pytest.raises(CursorMismatch):
        await bound.sync(cursor=head._replace(hash8="deadbeef", revision=head.revision + 1))


async def test_many_changes_come_in_parts_and_none_is_left_out(bound: Bound) -> None:
    for number in range(5):
        await bound.bind(f"alias/n{number}", f"c{number}", to=Direction.UNIDIRECTIONAL)
    told = await bound.sync()
    for number in range(5):
        await bound.node.set(f"n{number}", command=str(number))
    seen: list[str] = []
    told = await bound.sync(cursor=told.cursor, limit=1)
    while told.changes:
        seen += [each["component"] for each in told.changes]
        told = await bound.sync(cursor=told.cursor, limit=1)
    assert sorted(set(seen)) == [f"c{number}" for number in range(5)]


async def test_only_the_newest_rows_are_kept(bound: Bound) -> None:
    rows = [
        Exchanged(
            studio="s", entry="e", component=str(n), direction="broadcast", way="pull", revision=n,
            status=SyncStatus.PENDING, created_at="t", updated_at="t",
        )
        for n in range(MOST_KEPT + 5)
    ]  # fmt: skip
    await bound.log.add_exchanged(rows)
    assert await bound.query("SELECT count(*) FROM {}studio_syncs") == [(MOST_KEPT,)]
    assert (await bound.log.exchanged("e", "s", 1))[0].component == str(MOST_KEPT + 4)
