"""A store that goes back while its daemon runs and sessions are open: a standby that lagged has taken over, or a backup
was put back beneath it. What was told is not told anew under the same numbers, and what was lost comes back."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pgserver
import pytest
from syncing import GS, OPERATOR, Node, on_postgres, session_with, settle, sqlite, sync

from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.ids import Key
from universal_registry.registry.check import check_registry
from universal_registry.storage.audit_postgres import PgTrail
from universal_registry.storage.audit_sqlite import SqliteTrail
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sync_machines import SqliteEngine
from universal_registry.sync.session import Phase, Session

OLD = Key("alias", "default", "old")


@asynccontextmanager
async def as_it_is(node: Node, folder: Path) -> AsyncIterator[Node]:
    """The store of a node as it is now, which does not follow it; in the end the node has its own again."""
    own = node.books.store, node.books.writer, node.service, node.store
    try:
        async with _copy_of(node, folder) as copy:
            yield copy
            await check_registry(copy.service.records, copy.service.log, copy.service.event_commitment)
    finally:
        node.books.store, node.books.writer, node.service, node.store = own


def _copy_of(node: Node, folder: Path) -> AbstractAsyncContextManager[Node]:
    if isinstance(node.store, SqliteRegistry):
        SqliteEngine(folder / "none", node.books.catalogue).copy(folder.with_name("a"), folder)
        return sqlite(folder)
    server = pgserver.RUNNING[0]
    settings = server.database("gone_back")
    dump = server.dump(str(pgserver.database_of(folder.with_name("a")).name))
    load = [*server.psql("gone_back"), "-v", "ON_ERROR_STOP=1"]
    subprocess.run(load, input=dump, capture_output=True, check=True)
    return on_postgres(settings)


def fall_back(node: Node, copy: Node) -> None:
    """The same daemon, and what it remembers, on the other store."""
    node.books.store, node.books.writer = copy.books.store, copy.books.writer
    copy.books.writer.keep_versions(node.replica)  # type: ignore[attr-defined]
    node.service, node.store = copy.service, copy.store


async def exchange(left: Session, right: Session, *, ticks: int = 3) -> None:
    """All that two open sessions have to say, until one of them has ended."""
    for _ in range(ticks):
        to_right, to_left = await left.woken(), await right.woken()
        to_right, to_left = [*to_right, *await left.tick()], [*to_left, *await right.tick()]
        while to_right or to_left:
            frames, to_right = to_right, []
            for frame in frames:
                to_left += await right.receive(frame)
            frames, to_left = to_left, []
            for frame in frames:
                to_right += await left.receive(frame)


async def renewals(node: Node) -> list[str]:
    is_file = isinstance(node.store, SqliteRegistry)
    trail = SqliteTrail(node.store.database) if is_file else PgTrail(node.store.database, "registry")
    return [row.details for row in await trail.after(0, 100) if row.action == "node.renew"]


async def gone_back(a: Node, b: Node, copy: Node, left: Session, right: Session) -> None:
    """Both tell one another of an edit, in the sessions that are open; then the one is on the store of before."""
    await a.set("gs", command="lost here")
    await a.service.delete(OLD, actor=OPERATOR)
    await b.set("ll", command="lost here, too")
    await exchange(left, right)
    assert await b.spec("gs") == {"command": "lost here"}
    assert await a.spec("ll") == {"command": "lost here, too"}
    fall_back(a, copy)
    assert await a.spec("gs") == {"command": "git status"}


async def healed(a: Node, b: Node, before: str, left: Session, right: Session, **extra: dict[str, str]) -> None:
    """What was lost is back, nothing else was lost over it, and the node is another one, once."""
    await exchange(left, right)
    assert Phase.ENDED in (left.phase, right.phase)
    assert left.refused is None
    assert right.refused is None
    await sync(a, b)
    for node in (a, b):
        assert await node.spec("gs") == {"command": "lost here"}
        assert await node.spec("ll") == {"command": "lost here, too"}
        assert await node.spec("old") is None
        for name, spec in extra.items():
            assert await node.spec(name) == spec
        assert await node.reviews.reviews(10) == []
    assert (await a.replica.identity()).origin != before
    assert len(await renewals(a)) == 1


@pytest.mark.parametrize("first", ["nobody", "here", "there", "both"])
async def test_what_was_lost_comes_back_and_no_number_is_given_twice(
    pair: tuple[Node, Node], tmp_path: Path, first: str
) -> None:
    """Whoever writes first after it."""
    a, b = pair
    await a.set("gs", command="git status")
    await a.set("old", command="x")
    left, right = await session_with(a, b), await session_with(b, a)
    await settle(left, right)
    async with as_it_is(a, tmp_path / "copy") as copy:
        before = (await a.replica.identity()).origin
        await gone_back(a, b, copy, left, right)
        extra: dict[str, dict[str, str]] = {}
        for node, name in ((a, "here"), (b, "there")):
            if first in (name, "both"):
                for number in range(4):  # more than were lost
                    extra[f"{name}{number}"] = {"command": name}
                    await node.set(f"{name}{number}", command=name)
        await healed(a, b, before, left, right, **extra)


async def test_a_write_here_of_what_was_lost_is_a_conflict_and_not_the_end_of_it(
    pair: tuple[Node, Node], tmp_path: Path
) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await a.set("old", command="x")
    left, right = await session_with(a, b), await session_with(b, a)
    await settle(left, right)
    async with as_it_is(a, tmp_path / "copy") as copy:
        await gone_back(a, b, copy, left, right)
        await a.set("gs", command="new")
        await a.set("gs", shell="zsh")
        await exchange(left, right)
        await sync(a, b)
        for node in (a, b):
            assert await node.spec("gs") == {"command": "new", "shell": "zsh"}
            [review] = await node.reviews.reviews(10)
            assert [each.value for each in review.conflicts[0].losers] == ["lost here"]


async def test_what_comes_before_anybody_has_looked_is_not_taken_in(pair: tuple[Node, Node], tmp_path: Path) -> None:
    """The place in the feed of the peer that the session stands on is not that of the store any more."""
    a, b = pair
    await a.set("gs", command="git status")
    await a.set("old", command="x")
    left, right = await session_with(a, b), await session_with(b, a)
    await settle(left, right)
    async with as_it_is(a, tmp_path / "copy") as copy:
        await gone_back(a, b, copy, left, right)
        seen, vector = await b.replica.states([GS])
        with pytest.raises(Conflict, match="gone back"):
            await a.replica.take(left.peer, seen, vector, joins=True)
        assert await a.spec("gs") == {"command": "git status"}
        assert len(await renewals(a)) == 1


async def test_no_conflict_is_settled_on_it_before_anybody_has_looked(pair: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await b.set("gs", command="git status")
    await a.set("old", command="one")
    await b.set("old", command="other")
    left, right = await session_with(a, b), await session_with(b, a)
    await settle(left, right)
    [conflict] = (await a.reviews.reviews(10))[0].conflicts
    choice = {conflict.path: conflict.losers[0]}
    async with as_it_is(a, tmp_path / "copy") as copy:
        await gone_back(a, b, copy, left, right)
        with pytest.raises(Conflict, match="gone back"):
            await a.reviews.resolve(OLD, choice, "uid:1000")
        await exchange(left, right)
        await a.reviews.resolve(OLD, choice, "uid:1000")
        await sync(a, b)
        for node in (a, b):
            assert await node.spec("gs") == {"command": "lost here"}
            [review] = await node.reviews.reviews(10)
            assert review.key == OLD
            assert await node.spec("old") is None, "the deletion that was lost is back, beside what was settled since"
