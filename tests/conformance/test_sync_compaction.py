"""Registries that keep the same records while their logs are kept short and their tombstones go, on both engines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from compacting import Later, compact
from syncing import ALL, GS, OPERATOR, Node, session_with, sqlite, sync

from universal_registry.kernel.errors import CursorGone
from universal_registry.log.cursor import Cursor
from universal_registry.sync.conflict import Sort
from universal_registry.sync.version import LIFE

PAST = timedelta(days=31)
"""Later than tombstones are kept for a peer that is away."""


async def forget_the_log(node: Node) -> int:
    """Drop all of its log but for one line more; the revision up to which nothing is left."""
    gone = (await node.service.log.head()).revision
    await node.set(f"last-of-{node.name}", command=f"true {gone}")
    watched: Any = node
    await compact(watched, values=gone, lines=gone)
    horizon = await node.service.log.horizon()
    assert horizon.lines == gone, "or nothing is proved"
    return gone


async def purge_later(node: Node) -> int:
    """As the daemon does, a month and a day from now."""
    now, node.books.world = node.books.world, Later(PAST)
    try:
        return await node.reviews.purge()
    finally:
        node.books.world = now


async def gap_of(node: Node, other: Node) -> bool:
    return (await node.replica.peer((await other.replica.identity()).node)).gap


async def test_who_was_away_is_behind_the_horizon_and_gets_everything(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await a.set("gl", command="git log")
    await sync(a, b)
    await a.set("gs", command="git status -sb")
    await b.set("gl", shell="zsh")
    await a.set("ll", command="ls -l")
    for node in pair:
        await forget_the_log(node)
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "git status -sb"}
        assert await node.spec("gl") == {"command": "git log", "shell": "zsh"}
        assert await node.spec("ll") == {"command": "ls -l"}
        assert await node.reviews.keys(10) == []


async def test_who_was_wiped_gets_what_the_log_has_forgotten(pair: tuple[Node, Node], tmp_path: Any) -> None:
    a, b = pair
    await b.set("gs", command="git status")
    await b.set("old", command="gone soon")
    await b.service.delete(GS._replace(name="old"), actor=OPERATOR)
    gone = await forget_the_log(b)
    await sync(a, b)
    (tmp_path / "new").mkdir()
    async with sqlite(tmp_path / "new") as fresh:
        await fresh.replica.enable("home", (ALL,))
        await sync(fresh, b)
        assert await fresh.spec("gs") == {"command": "git status"}
        assert await fresh.spec("old") is None
        lines = await fresh.service.log.changes(0, 100)
        assert {line.key.name for line in lines} == {"gs", "last-of-b"}, "its log tells of what came, not of what was"
    head = await b.service.log.head()
    with pytest.raises(CursorGone) as told:
        await b.service.log.check_cursor(Cursor(head.incarnation, gone - 1, "00000000"))
    assert told.value.data["cursor"] == str(head.cursor), "whoever reads the log itself hears that it is gone"


async def test_a_merge_beside_a_log_that_is_kept_short_is_a_line_like_any(pair: tuple[Node, Node]) -> None:
    """What a merge writes may be compacted, and the record that it is about has its value before it."""
    a, b = pair
    await a.set("gs", command="one")
    await sync(a, b)
    await forget_the_log(b)
    await a.set("gs", command="two")
    await sync(a, b)
    head = await b.service.log.head()
    [line] = await b.service.log.changes(head.revision - 1, 10)
    assert (line.key, line.actor[:5]) == (GS, "peer:")
    await forget_the_log(b)
    await b.set("gs", command="three")
    await sync(a, b)
    assert await a.spec("gs") == {"command": "three"}
    assert (await a.service.get(GS)).updated_by.startswith("peer:")


async def test_a_deletion_arrives_though_its_line_and_its_tombstone_are_gone(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for name in ("gs", "gl"):
        await a.set(name, command="git")
    await sync(a, b)
    await a.service.delete(GS, actor=OPERATOR)
    await a.set("gl", shell="zsh")
    await forget_the_log(a)
    assert await a.reviews.purge() == 0, "b is away, and may still have to be told"
    assert await purge_later(a) == 1
    [[known], _] = await a.replica.states([GS])
    assert known.state.fields == {}
    assert (await a.replica.identity()).floor > 0
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") is None
        assert await node.spec("gl") == {"command": "git", "shell": "zsh"}
        assert await node.reviews.keys(10) == []
    assert not await gap_of(b, a), "the comparison has mended it"
    sent = await sync(a, b)
    assert not any(b'"recs"' in frame for frame in sent)


async def test_who_comes_from_below_the_floor_takes_over_no_vector_until_it_is_mended(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await sync(a, b)
    before = (await b.replica.identity()).vector
    await a.service.delete(GS, actor=OPERATOR)
    await a.set("gl", command="git log")
    assert await purge_later(a) == 1
    left, right = await session_with(a, b), await session_with(b, a)
    [hello], [other] = await left.open(), await right.open()
    [since] = await right.receive(hello)
    await left.receive(other)
    [batch] = await left.receive(since)
    await right.receive(batch)
    assert await b.spec("gl") == {"command": "git log"}
    assert await b.spec("gs") == {"command": "git status"}, "nothing has said that it is gone, yet"
    assert (await b.replica.identity()).vector == before
    assert await gap_of(b, a)
    await sync(a, b)
    assert await b.spec("gs") is None
    assert (await b.replica.identity()).vector == (await a.replica.identity()).vector


async def test_an_edit_of_what_was_deleted_and_purged_meanwhile_is_kept_for_review(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status", shell="zsh")
    await sync(a, b)
    await a.service.delete(GS, actor=OPERATOR)
    await b.set("gs", command="edited meanwhile")
    await forget_the_log(a)
    assert await purge_later(a) == 1
    await forget_the_log(b)
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") is None, "a deletion that was purged is one all the same"
        [review] = await node.reviews.reviews(10)
        assert [(each.path, each.sort) for each in review.conflicts] == [("/spec/command", Sort.ORPHAN)]
        [[known], _] = await node.replica.states([GS])
        assert LIFE not in known.state.fields
    await a.set("gs", command="back again")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "back again"}
        assert await node.reviews.keys(10) == []


async def test_a_field_that_was_removed_stays_so_past_retention(pair: tuple[Node, Node]) -> None:
    a, b = pair
    document = {"kind": "alias", "name": "gs", "classification": "ZshAlias"}
    await a.service.put({**document, "spec": {"command": "git", "shell": "zsh"}}, actor=OPERATOR)
    await sync(a, b)
    await a.service.put({**document, "spec": {"command": "git"}}, actor=OPERATOR)
    await forget_the_log(a)
    assert await purge_later(a) == 1
    await b.set("gs", command="git -C /srv")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "git -C /srv"}
        assert await node.reviews.keys(10) == []
