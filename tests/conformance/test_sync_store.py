"""Two registries that keep the same records, whatever the engines below."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from syncing import ALL, GS, OPERATOR, WORLD, Node, session_with, settle, sqlite, sync

from universal_registry.kernel.errors import Conflict as StateConflict
from universal_registry.kernel.errors import Invalid, NotFound, StorageUnavailable
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.selector import Selector
from universal_registry.storage.audit_postgres import PgTrail
from universal_registry.storage.audit_sqlite import SqliteTrail
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sqlfiles import load_queries
from universal_registry.storage.sync_marker import read_marker
from universal_registry.sync.audience import Reach
from universal_registry.sync.conflict import Sort
from universal_registry.sync.greeting import Link
from universal_registry.sync.identity import Renewal
from universal_registry.sync.ports import Peer
from universal_registry.sync.session import COMPARE_SECONDS, Session
from universal_registry.sync.version import LIFE, Known, State, Version


async def test_records_go_both_ways(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await b.set("ll", command="ls -l")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "git status"}
        assert await node.spec("ll") == {"command": "ls -l"}
    record = await b.service.get(GS)
    assert record.updated_by.startswith("peer:")


async def test_a_second_round_sends_nothing_new(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await sync(a, b)
    head = (await b.store.head()).revision
    sent = await sync(a, b)
    assert not any(b'"recs"' in frame for frame in sent)
    assert (await b.store.head()).revision == head


async def test_edits_of_different_fields_both_survive(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await sync(a, b)
    await a.set("gs", command="git status -sb")
    await b.set("gs", shell="zsh")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "git status -sb", "shell": "zsh"}
        assert await node.reviews.reviews(10) == []


async def test_what_is_changed_on_both_sides_by_turns_is_told_on_both(pair: tuple[Node, Node]) -> None:
    a, b = pair
    left, right = await session_with(a, b), await session_with(b, a)
    await settle(left, right)
    for number in range(6):
        for node, session, other in ((a, left, right), (b, right, left)):
            assert a.replica.to_and_fro() == {}
            await node.set("gs", command=f"{node.name}{number}")
            for frame in await session.woken():
                for answer in await other.receive(frame):
                    await session.receive(answer)
    assert a.replica.to_and_fro() == {GS: (await b.replica.identity()).node}
    assert b.replica.to_and_fro() == {GS: (await a.replica.identity()).node}
    assert await a.spec("gs") == await b.spec("gs") == {"command": "b5"}


async def test_of_one_field_the_same_wins_and_the_loser_is_settled_once(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await sync(a, b)
    await a.set("gs", command="one")
    await b.set("gs", command="other")
    await sync(a, b)
    assert await a.spec("gs") == await b.spec("gs") == {"command": "other"}
    for node in pair:
        [review] = await node.reviews.reviews(10)
        [conflict] = review.conflicts
        assert (review.key, conflict.path, conflict.sort) == (GS, "/spec/command", Sort.VALUE)
        assert [version.value for version in conflict.losers] == ["one"]
    [review] = await a.reviews.reviews(10)
    await a.reviews.resolve(GS, {"/spec/command": review.conflicts[0].losers[0]}, "uid:1000")
    assert await a.spec("gs") == {"command": "one"}
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "one"}
        assert await node.reviews.reviews(10) == []


async def test_what_is_shown_can_be_confirmed(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="one")
    await b.set("gs", command="other")
    await sync(a, b)
    [review] = await a.reviews.reviews(10)
    shown = review.conflicts[0].shown
    assert shown is not None
    head = (await a.store.head()).revision
    await a.reviews.resolve(GS, {"/spec/command": shown}, "uid:1000")
    assert (await a.store.head()).revision == head, "the record is as it was: no line says that it changed"
    await sync(a, b)
    assert await b.reviews.reviews(10) == []


async def test_a_deletion_beats_what_it_saw_and_keeps_what_it_did_not(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status", shell="zsh")
    await sync(a, b)
    await a.service.delete(GS, actor=OPERATOR)
    await b.set("gs", command="edited meanwhile")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") is None
        [review] = await node.reviews.reviews(10)
        assert [(each.path, each.sort) for each in review.conflicts] == [("/spec/command", Sort.ORPHAN)]
    await b.set("gs", command="back again")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "back again"}
        assert await node.reviews.reviews(10) == []


async def test_tombstones_are_purged_when_every_peer_has_them(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    await sync(a, b)
    await a.service.delete(GS, actor=OPERATOR)
    assert await a.replica.states([GS]) != ([], {})
    assert await a.reviews.purge() == 0, "b has not acknowledged it"
    await sync(a, b)
    assert await a.reviews.purge() == 1
    [[known], _] = await a.replica.states([GS])
    assert known.state.fields == {}
    await sync(a, b)
    assert await a.spec("gs") is None
    assert await b.spec("gs") is None


async def test_a_wiped_node_gets_everything_back(pair: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = pair
    for number in range(50):
        await b.set(f"n{number}", command="x" * 100)
    await sync(a, b)
    (tmp_path / "new").mkdir()
    async with sqlite(tmp_path / "new") as fresh:
        await fresh.replica.enable("home", (ALL,))
        await sync(fresh, b)
        for number in range(50):
            assert await fresh.spec(f"n{number}") == {"command": "x" * 100}


async def test_what_does_not_fit_here_is_held_and_passed_on(pair: tuple[Node, Node]) -> None:
    a, b = pair
    strange = Key("gizmo", "default", "g")
    version = Version("0000000a-0000000b", 1, 1, 5)
    wrong = State({LIFE: (version,), "/classification": (version,), "/spec/command": (version,)})
    known = [Known(strange, wrong), Known(GS, wrong)]
    await a.replica.take(Peer(node="0000000a"), known, {version.origin: 1}, joins=True)
    await sync(a, b)
    for node in pair:
        held = {review.key: review.held for review in await node.reviews.reviews(10)}
        assert "there is no kind gizmo" in held[strange]
        assert "classification must be a string" in held[GS]
        assert await node.spec("gs") is None
    await b.set("gs", command="mended")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "mended"}
        assert [review.key for review in await node.reviews.reviews(10)] == [strange]


async def test_items_of_a_set_merge_one_by_one(pair: tuple[Node, Node]) -> None:
    a, b = pair
    document = {"kind": "service", "name": "pay", "classification": "ApiService"}
    await a.service.put({**document, "spec": {"depends_on": ["db", "old"]}}, actor=OPERATOR)
    await sync(a, b)
    await a.service.put({**document, "spec": {"depends_on": ["db", "cache", "old"]}}, actor=OPERATOR)
    await b.service.put({**document, "spec": {"depends_on": ["queue", "db"]}}, actor=OPERATOR)
    await sync(a, b)
    for node in pair:
        record = await node.service.get(Key("service", "default", "pay"))
        assert record.spec == {"depends_on": ["cache", "db", "queue"]}
        assert await node.reviews.reviews(10) == []


async def test_a_kill_between_batches_goes_on_where_it_was(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for number in range(20):
        await a.set(f"n{number}", command="x" * 50)
    theirs = await a.replica.identity()
    left = Session(a.replica, Link((await b.replica.identity()).node, ALL, Reach(a.replica.selector(ALL))), WORLD)
    right = Session(b.replica, Link(theirs.node, ALL, Reach(b.replica.selector(ALL))), WORLD, batch_bytes=600)
    [hello] = await left.open()
    [since] = await right.receive(hello)
    await left.receive((await right.open())[0])
    batch = (await left.receive(since))[0]
    await right.receive(batch)
    cut = await b.replica.identity()
    assert theirs.origin not in cut.vector, "more is to come: nothing counts as seen"
    assert 0 < (await b.replica.peer(theirs.node)).cursor < theirs.feed
    await sync(a, b)
    assert (await b.replica.identity()).vector[theirs.origin] == theirs.feed
    assert await b.spec("n19") == {"command": "x" * 50}


async def test_a_secret_stays_where_it_is_and_none_is_taken(pair: tuple[Node, Node]) -> None:
    a, b = pair
    document = {"kind": "endpoint", "namespace": "default", "name": "t", "spec": {"url": "https://t.example/"}}
    await a.service.put(
        {
            **document,
            "spec": {**document["spec"], "delivery": {"secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}},
        },
        actor=OPERATOR,
    )
    frames = await sync(a, b)
    assert not any(b"$sealed" in frame or b"whsec" in frame for frame in frames)
    key = Key("endpoint", "default", "t")
    await b.service.merge({**document, "title": "named there"}, actor=OPERATOR)
    await sync(a, b)
    record = await a.service.get(key)
    assert record.title == "named there"
    assert "$sealed" in record.spec["delivery"]["secret"]
    assert "delivery" not in (await b.service.get(key)).spec


async def test_rolled_back_stores_become_somebody_else(pair: tuple[Node, Node], tmp_path: Path) -> None:
    a, b = pair
    marker = tmp_path / "marker"
    assert await a.replica.start(marker, shared=True) is Renewal.NO
    before = await a.replica.identity()
    marker.write_text(f"{before.boot} {before.feed + 5}\n", encoding="utf-8")
    assert await a.replica.start(marker, shared=True) is Renewal.BEHIND
    after = await a.replica.identity()
    assert (after.epoch, after.store) != (before.epoch, before.store)
    assert after.node == before.node
    await sync(a, b)


async def test_scopes_go_by_keys_alone(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    with pytest.raises(Invalid, match="keys alone"):
        await a.replica.enable("home", ("labels.tier=dev",))
    with pytest.raises(StateConflict, match="belongs to the group"):
        await a.replica.enable("elsewhere", (ALL,))


async def test_records_of_before_get_versions(tmp_path: Path) -> None:
    async with sqlite(tmp_path) as node:
        await node.set("gs", command="git status")
        with pytest.raises(NotFound):
            await node.replica.identity()
        await node.replica.enable("home", (ALL,))
        feed = await node.replica.feed(Selector(), 0, {}, 1000)
        assert [known.key for known in feed.records] == [GS]


async def test_which_records_are_to_be_reviewed_is_read_from_an_index_alone(tmp_path: Path) -> None:
    """`peer status` asks for all of them; a row is a page or a large part of one."""
    async with sqlite(tmp_path) as node:
        asked = load_queries("sqlite/sync.sql")["keys_to_review"]
        [(*_, how)] = node.store.database.read(f"EXPLAIN QUERY PLAN {asked}", (10,))
    assert "USING COVERING INDEX sync_records_to_review" in how


class LaterWorld(SystemWorld):
    """So much later than it is."""

    later = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.later


async def test_after_a_day_equal_registries_compare_again(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.set("gs", command="git status")
    world = LaterWorld()
    left, right = await session_with(a, b, world), await session_with(b, a, world)
    await settle(left, right)
    assert not [*await left.tick(), *await right.tick()]
    world.later = COMPARE_SECONDS
    asked = [*await left.tick(), *await left.tick(), *await right.tick(), *await right.tick()]
    assert all(b'"digest"' in frame for frame in asked)
    assert asked


async def test_a_renewed_identity_is_a_deed_for_the_audit(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    before = await a.replica.identity()
    await a.replica.renew(Renewal.PEER_KNOWS_MORE)
    after = await a.replica.identity()
    is_file = isinstance(a.store, SqliteRegistry)
    trail = SqliteTrail(a.store.database) if is_file else PgTrail(a.store.database, "registry")
    [deed] = [row for row in await trail.after(0, 100) if row.action == "node.renew"]
    assert (deed.actor, deed.subject) == ("daemon", f"node {before.node}")
    assert before.origin in deed.details
    assert after.origin in deed.details


async def test_the_marker_says_after_each_commit_how_far_numbers_were_given(
    pair: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = pair
    marker = tmp_path / "marker"
    await a.replica.start(marker, shared=False)
    await a.set("gs", command="git status")
    found = read_marker(marker)
    assert found is not None
    assert found.told == (await a.replica.identity()).feed == 1


async def test_without_its_marker_a_registry_is_written_and_tells_nobody(
    pair: tuple[Node, Node], tmp_path: Path
) -> None:
    a, _ = pair
    folder = tmp_path / "state"
    await a.replica.start(folder / "marker", shared=False)
    shutil.rmtree(folder)
    folder.write_text("no folder any more", encoding="utf-8")
    await a.set("gs", command="git status")
    assert await a.spec("gs") == {"command": "git status"}
    with pytest.raises(StorageUnavailable, match="cannot be written"):
        await a.replica.feed(Selector(), 0, {}, 1000)
