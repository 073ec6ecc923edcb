"""Compaction (W8), whatever the engine below: what goes, what stays, and what whoever comes late is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from compacting import Later, compact, compaction_to, history_of
from watching import ENGINES, OPERATOR, Watched, events, read

from universal_registry.api.watcher import Asked, Policy, Start
from universal_registry.kernel.errors import Conflict, Corrupt, CursorGone, NotFound, StorageUnavailable
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import HistorySettings
from universal_registry.log.change import Op
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.log.horizon import Horizon
from universal_registry.observe.audit import PROPAGATION, REGISTRY, Audit, anchors_in
from universal_registry.registry.check import Checked, check_registry
from universal_registry.registry.history import newest_before
from universal_registry.registry.retention import Reader
from universal_registry.storage.audit_postgres import PgTrail
from universal_registry.storage.audit_sqlite import SqliteTrail
from universal_registry.storage.compaction import Compaction
from universal_registry.storage.registry_sqlite import SqliteRegistry


@pytest.fixture(params=ENGINES)
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    async with ENGINES[request.param](tmp_path) as opened:
        yield opened


async def lived(watched: Watched) -> None:
    """20 revisions: `a` changes all the time, `b` is put once, `c` is deleted, `d` deleted and made again."""
    for at in range(1, 5):
        await watched.put("a", str(at))
    await watched.put("b", "5")
    await watched.put("c", "6")
    await watched.delete("c")
    await watched.put("d", "8")
    await watched.delete("d")
    await watched.put("d", "10")
    key = Key("alias", "default", "b")
    for _ in range(2):
        await watched.service.emit(key, {"said": 1}, audience=[], session="s", options={}, actor=OPERATOR)
    for at in range(13, 20):
        await watched.put("a", str(at))
    await watched.delete("b")


async def sound(watched: Watched) -> Checked:
    service = watched.service
    return await check_registry(service.records, service.log, service.event_commitment)


def trail_of(watched: Watched) -> Any:
    store: Any = watched.service.log
    return SqliteTrail(store.database) if isinstance(store, SqliteRegistry) else PgTrail(store.database, "registry")


def audit_of(watched: Watched) -> Audit:
    return Audit(watched.service.log, {REGISTRY: trail_of(watched), PROPAGATION: trail_of(watched)})


async def cursor_at(watched: Watched, revision: int) -> Cursor:
    line = await watched.service.log.line(revision, 0)
    assert line is not None
    return Cursor((await watched.service.log.head()).incarnation, revision, line.hash[:4].hex())


def told(frames: list[dict[str, Any]]) -> list[tuple[str, str, str, bool]]:
    return [
        (event["op"], event["name"], event.get("record", {}).get("spec", {}).get("command", ""), "compacted" in event)
        for frame in frames
        for event in frame.get("events", ())
    ]


# --- values ---------------------------------------------------------------------------------------------------------


async def test_who_is_behind_gets_the_newest_state_of_all_that_has_changed_since(watched: Watched):
    await lived(watched)
    second = await cursor_at(watched, 2)
    done = await compact(watched, values=15)
    assert done["horizon"] == {"values": 15, "lines": 0}
    found = told(await read(await watched.small.open(Asked(start=second))))
    assert found[:4] == [
        ("put", "b", "5", False),
        ("delete", "c", "", False),
        ("delete", "d", "", True),  # made anew since, and what it was before is not known any more
        ("put", "d", "10", False),
    ]
    assert [each[0] for each in found[4:6]] == ["event", "event"]
    assert found[6] == ("put", "a", "15", True)
    assert found[7:] == [("put", "a", str(at), False) for at in range(16, 20)] + [("delete", "b", "", False)]
    await sound(watched)


@pytest.mark.parametrize("policy", [Policy.WAIT, Policy.COALESCE])
async def test_who_has_read_up_to_the_horizon_notices_nothing(watched: Watched, policy: Policy):
    await lived(watched)
    places = [await cursor_at(watched, revision) for revision in (11, 12, 15, 19)]
    before = [await read(await watched.small.open(Asked(start=place, policy=policy))) for place in places]
    await compact(watched, values=11, lines=11)
    after = [await read(await watched.small.open(Asked(start=place, policy=policy))) for place in places]
    assert after == before


async def test_what_goes_is_what_was_foreseen(watched: Watched):
    await lived(watched)
    compaction = await compaction_to(watched, values=15, lines=8)
    would = (await compaction.look())["would"]
    size = (await history_of(watched).size()).lines
    done = await compaction.run("uid:1000", 60.0)
    # Of `a`: 1 to 14; `c` as it was; `d`, and that it was deleted; two events.
    assert would["gone"]["values"] == done["gone"]["values"] == 6 + 1 + 2 + 2
    assert would["gone"]["bytes"] > 0
    # Of `a`: 1 to 3; `c`, and that it was deleted.
    assert would["gone"]["lines"] == done["gone"]["lines"] == 3 + 2
    assert (await history_of(watched).size()).lines == size - 5
    nothing = (await compaction.look())["would"]["gone"]
    assert nothing == {"values": 0, "bytes": 0, "lines": 0}


async def test_the_past_of_a_record_is_right_or_said_to_be_gone(watched: Watched):
    await lived(watched)
    keys = [Key("alias", "default", name) for name in "abcd"]

    async def past(key: Key, revision: int) -> str:
        try:
            return str((await watched.service.at(key, revision)).record.spec["command"])
        except CursorGone:
            return "gone"
        except NotFound:
            return "none"

    places = [(key, revision) for key in keys for revision in range(1, 21)]
    before = {place: await past(*place) for place in places}
    assert "gone" not in before.values()
    await compact(watched, values=15, lines=10)
    after = {place: await past(*place) for place in places}
    assert {place for place in places if place[1] >= 15 and after[place] != before[place]} == set()
    assert {after[place] for place in places if after[place] != before[place]} == {"gone"}
    assert after[Key("alias", "default", "d"), 9] == after[Key("alias", "default", "a"), 2] == "gone"
    assert after[Key("alias", "default", "b"), 6] == "5"


# --- lines ----------------------------------------------------------------------------------------------------------


async def test_a_cursor_from_before_the_lines_that_are_kept_is_refused_with_one_to_go_on_from(watched: Watched):
    await lived(watched)
    old, last = await cursor_at(watched, 7), await cursor_at(watched, 8)
    await compact(watched, values=15, lines=8)
    head = (await watched.service.log.head()).cursor
    for open_it in (
        lambda: watched.hub.open(Asked(start=old)),
        lambda: watched.service.changes(old, 100),
        lambda: watched.service.changes(None, 100),
        lambda: watched.service.log.check_cursor(old),
    ):
        with pytest.raises(CursorGone) as caught:
            await open_it()
        assert (caught.value.status, caught.value.code) == (410, "cursor-gone")
        assert caught.value.data["cursor"] == str(head)
    lines, _ = await watched.service.changes(last, 100)
    assert [line.revision for line in lines] == list(range(9, 21))
    watcher = await watched.small.open(Asked(start=last))
    assert events(await read(watcher))[0] == ("delete", "d", "")
    forged = Cursor(last.incarnation, 8, "00000000")
    with pytest.raises(Conflict) as other:
        await watched.service.log.check_cursor(forged)
    assert other.value.code == "cursor-mismatch"


async def test_from_the_beginning_is_what_is_there_where_the_beginning_is_gone(watched: Watched):
    await lived(watched)
    await compact(watched, values=15, lines=15)
    watcher = await watched.hub.open(Asked(start=Start.BEGINNING))
    frames = await read(watcher)
    assert [frame["type"] for frame in frames] == ["records", "synced"]
    assert {record["name"]: record["spec"]["command"] for record in frames[0]["records"]} == {"a": "19", "d": "10"}
    await watched.put("e", "21")
    assert events(await read(watcher, until="changes")) == [("put", "e", "21")]


async def test_a_watch_that_compaction_overtakes_ends_and_says_where_to_go_on(watched: Watched):
    await lived(watched)
    for at in range(400):
        await watched.put("z", str(at))
    watcher = await watched.small.open(Asked(start=await cursor_at(watched, 2)))
    await watcher.next()
    reached = watcher.cursor.revision
    assert reached < 400
    await compact(watched, values=410, lines=405)
    frames = await read(watcher, until="end")
    revisions = [frame["revision"] for frame in frames if frame["type"] == "changes"]
    assert revisions == list(range(reached + 1, reached + 1 + len(revisions)))  # what it had read before, and no gap
    assert (frames[-1]["code"], frames[-1]["resync"]) == ("cursor-gone", True)
    assert parse_cursor(frames[-1]["cursor"]) == (await watched.service.log.head()).cursor
    assert await watcher.next() == []


async def test_what_is_left_behind_the_horizon_is_the_newest_line_of_what_was_there(watched: Watched):
    await lived(watched)
    await compact(watched, values=15, lines=12)
    left = [line for line in await watched.service.log.changes(0, 100) if line.revision <= 12]
    assert [(line.revision, line.op, line.name, line.body is None) for line in left] == [
        (4, Op.PUT, "a", True), (5, Op.PUT, "b", False), (10, Op.PUT, "d", False),
    ]  # fmt: skip
    checked = await sound(watched)
    assert (checked.since, checked.revision, checked.lines, checked.records) == (12, 20, 3 + 8, 2)
    await compact(watched, values=19, lines=19)
    assert [line.revision for line in await watched.service.log.changes(0, 100)] == [5, 10, 19, 20]
    await sound(watched)


async def test_what_is_about_targets_and_routes_stays(watched: Watched):
    for at in range(1, 6):
        await watched.service.put(
            {"kind": "alias", "namespace": "system", "name": "hook", "spec": {"command": str(at)}}, actor=OPERATOR
        )
        await watched.put("a", str(at))
    await compact(watched, values=9, lines=9)
    lines = await watched.service.log.lines_of_kind("alias", "system")
    assert [line.revision for line in lines] == [1, 3, 5, 7, 9]
    assert all(line.body is not None for line in lines)
    await sound(watched)


# --- who is waited for ----------------------------------------------------------------------------------------------


async def test_values_wait_for_readers_whose_lines_are_there_and_lines_for_lasting_ones(watched: Watched):
    await lived(watched)
    consumer, hook = Reader("consumer audit", 9), Reader("target system/hook", 6, lasting=True)
    done = await compact(watched, values=15, lines=12, readers=[consumer])
    assert (done["horizon"], done["kept_back"]) == ({"values": 15, "lines": 12}, [])  # the consumer is past its time
    await watched.put("a", "21")
    done = await compact(watched, values=18, lines=12, readers=[Reader("consumer audit", 16)])
    assert done["horizon"] == {"values": 16, "lines": 12}
    assert done["kept_back"] == [{"name": "consumer audit", "revision": 16}]
    done = await compact(watched, values=18, lines=17, readers=[hook])
    assert done["horizon"] == {"values": 16, "lines": 12}  # it never goes back, nor on past a target
    assert done["kept_back"] == [{"name": "target system/hook", "revision": 6}]


async def test_it_remembers_how_much_is_kept_for_the_sake_of_a_target(watched: Watched):
    await lived(watched)
    readers = [Reader("consumer audit", 9), Reader("target system/hook", 6, lasting=True)]
    compaction = await compaction_to(watched, values=15, readers=readers)
    assert compaction.kept == {}, "nobody has looked yet"
    await compaction.look()
    assert compaction.kept == {"target system/hook": 9}
    compaction = await compaction_to(watched, values=15, readers=[Reader("target system/hook", 15, lasting=True)])
    await compaction.look()
    assert compaction.kept == {}


async def test_nothing_young_goes(watched: Watched):
    await lived(watched)

    async def nobody() -> list[Reader]:
        return []

    settings = HistorySettings(value_revisions=1, line_revisions=1)
    world = Later(timedelta(minutes=9))
    done = await Compaction(watched.service.log, history_of(watched), world, settings, nobody).run("uid:1000", 60.0)
    assert done["horizon"] == {"values": 0, "lines": 0}
    world.by = timedelta(minutes=11)
    done = await Compaction(watched.service.log, history_of(watched), world, settings, nobody).run("uid:1000", 60.0)
    assert done["horizon"] == {"values": 19, "lines": 19}


async def test_age_counts_in_days(watched: Watched):
    await lived(watched)

    async def nobody() -> list[Reader]:
        return []

    world = Later(timedelta(days=29))
    compaction = Compaction(watched.service.log, history_of(watched), world, HistorySettings(), nobody)
    assert (await compaction.run("uid:1000", 60.0))["horizon"] == {"values": 0, "lines": 0}
    world.by = timedelta(days=31)
    assert (await compaction.run("uid:1000", 60.0))["horizon"] == {"values": 20, "lines": 0}
    world.by = timedelta(days=91)
    assert (await compaction.run("uid:1000", 60.0))["horizon"] == {"values": 20, "lines": 20}
    assert await newest_before(watched.service.log, world.now()) == 20
    await watched.put("a", "21")
    assert (await sound(watched)).since == 20


# --- step by step ---------------------------------------------------------------------------------------------------


async def test_after_every_step_it_is_sound_and_everybody_is_told_the_same(watched: Watched):
    """Each step is a transaction: this is what a kill leaves."""
    await lived(watched)
    store, log = history_of(watched), watched.service.log
    after_all = await read(await watched.small.open(Asked(start=await cursor_at(watched, 15))))
    await (await compaction_to(watched, values=15, lines=10))._move("uid:1000")
    assert await log.horizon() == Horizon(values=15, lines=10, hash=(await log.line(10, 0)).hash, living=3)  # type: ignore[union-attr]
    more = True
    while more:
        dropped, removed = await store.drop_values(2), await store.remove_lines(3)
        more = dropped.more or removed.more
        await sound(watched)
        await audit_of(watched).verify_trail(REGISTRY)
        watcher = await watched.small.open(Asked(start=await cursor_at(watched, 15)))
        assert await read(watcher) == after_all
    found = told(await read(await watched.small.open(Asked(start=await cursor_at(watched, 11)))))
    assert found == [
        ("event", "b", "", True), *(("put", "a", str(at), at == 15) for at in range(15, 20)),
        ("delete", "b", "", False),
    ]  # fmt: skip


async def test_it_goes_on_where_it_was_interrupted(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    await lived(watched)
    store = history_of(watched)
    compaction = await compaction_to(watched, values=15, lines=10, store=store)

    async def gone(limit: int) -> Any:
        raise StorageUnavailable("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(store, "remove_lines", gone)
        with pytest.raises(StorageUnavailable):
            await compaction.run("uid:1000", 60.0)
    assert (await watched.service.log.horizon()).lines == 10
    await sound(watched)
    assert (await compaction.run("uid:1000", 60.0))["done"] is True
    assert [line.revision for line in await watched.service.log.changes(0, 100)][:3] == [4, 5, 10]
    await sound(watched)


async def test_two_at_once_do_it_once(watched: Watched):
    """As two daemons on one database may."""
    await lived(watched)
    one, two = await compaction_to(watched, values=15), await compaction_to(watched, values=15)
    before = await watched.service.log.horizon()
    await one._move("uid:1000")
    assert not await history_of(watched).declare(before, Horizon(values=3), (await _deed(watched))), (
        "a horizon that has moved is moved back"
    )
    await two._move("uid:1000")
    rows = await trail_of(watched).after(0, 100)
    assert [row.action for row in rows] == ["history.compact"]


async def _deed(watched: Watched) -> Any:
    from universal_registry.log.audit import deed

    return deed(watched.service.world, "uid:1000", "history.compact")


async def test_the_background_gives_way_and_then_rests(watched: Watched):
    await lived(watched)
    compaction = await compaction_to(watched, values=15, lines=10)
    world = compaction._world
    monotonic = world.monotonic() + 100.0
    world.monotonic = lambda: monotonic  # type: ignore[method-assign]
    while (pause := await compaction.tick()) == 0.0:
        pass
    assert pause == pytest.approx(3600.0)
    assert (compaction.values, compaction.lines, compaction.passes) == (11, 7, 1)
    compaction.settings = HistorySettings(compact=False, value_revisions=1)
    monotonic += 3601.0
    while await compaction.tick() == 0.0:
        pass
    assert (await watched.service.log.horizon()).values == 15


# --- proof ----------------------------------------------------------------------------------------------------------


async def test_the_chain_holds_from_the_horizon_on_and_the_trail_says_where_that_is(watched: Watched):
    await lived(watched)
    audit = audit_of(watched)
    early = str(await audit.anchor())
    await compact(watched, values=15, lines=12)
    middle = str(await audit.anchor())
    await watched.put("a", "21")
    await compact(watched, values=20, lines=20)
    assert await audit.verify_trail(REGISTRY) == 2
    assert await audit.agree(anchors_in(early) + anchors_in(middle)) == 2
    await sound(watched)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("DELETE FROM changes WHERE revision = 17", "revision 17 is missing"),
        ("UPDATE changes SET actor = 'nobody' WHERE revision = 17", "revision 17 was altered"),
        ("UPDATE log_horizon SET lines_upto = 14", "revision 15 was altered"),
        ("UPDATE log_horizon SET living = 9", "there are 2 records, and by the log there must be 8"),
        ("UPDATE changes SET body = replace(body, '\"10\"', '\"11\"') WHERE revision = 10", "line 10.0 .* was altered"),
        ("DELETE FROM changes WHERE revision = 10", "stands in no line of the log"),
    ],
)
async def test_what_was_altered_or_cut_is_named(watched: Watched, spoil: str, says: str):
    await lived(watched)
    await compact(watched, values=15, lines=12)
    await _spoil(watched, spoil)
    with pytest.raises(Corrupt, match=says):
        await sound(watched)


async def test_a_cut_that_the_trail_does_not_tell_of_is_noticed(watched: Watched):
    """Somebody who can write the store removes what happened, and says that compaction did."""
    await lived(watched)
    await compact(watched, values=15, lines=8)
    line = await watched.service.log.line(12, 0)
    assert line is not None
    await _spoil(watched, "DELETE FROM changes WHERE revision IN (9, 11, 12)")
    await _spoil(watched, f"UPDATE log_horizon SET lines_upto = 12, living = 3, hash = {_blob(watched, line.hash)}")
    await sound(watched)  # the log alone cannot tell
    with pytest.raises(Corrupt, match="kept from revision 12 on, and its audit trail does not say so"):
        await audit_of(watched).verify_trail(REGISTRY)


def _blob(watched: Watched, data: bytes) -> str:
    return f"x'{data.hex()}'" if isinstance(watched.service.log, SqliteRegistry) else f"'\\x{data.hex()}'"


async def _spoil(watched: Watched, sql: str) -> None:
    store: Any = watched.service.log
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
