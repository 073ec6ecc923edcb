"""The watch contract (W1-W15), whatever the engine below: add yours to ENGINES of `tests/watching.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from watching import ENGINES, OPERATOR, WORLD, Watched, events, read, read_events

from universal_registry.api.watch_hub import WatchHub
from universal_registry.api.watcher import Asked, Policy, Start
from universal_registry.kernel.errors import CursorMismatch, StorageUnavailable
from universal_registry.kernel.ids import Key
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.registry.ports import Page
from universal_registry.registry.watch import FrameKind, Passage


@pytest.fixture(params=ENGINES)
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    async with ENGINES[request.param](tmp_path) as opened:
        yield opened


async def test_all_from_the_beginning_then_synced_then_news(watched: Watched):
    await watched.put("a", "1")
    await watched.put("b", "1")
    await watched.put("a", "2")
    watcher = await watched.hub.open(Asked(start=Start.BEGINNING))
    frames = await read(watcher)
    assert events(frames) == [("put", "a", "1"), ("put", "b", "1"), ("put", "a", "2")]
    assert [frame["type"] for frame in frames] == ["changes", "changes", "changes", "synced"]
    third = frames[2]["events"][0]
    assert third["previous"]["spec"]["command"] == "1"
    assert third["changed"] == ["spec.command"]
    await watched.put("c", "1")
    assert events(await read(watcher, until="changes")) == [("put", "c", "1")]
    await watcher.close()
    assert await watcher.next() == []
    assert watched.hub.figures().watchers == 0


async def test_a_revision_comes_in_one_frame(watched: Watched):
    documents = [{"op": "put", "kind": "alias", "name": f"n{at}", "spec": {"command": "v"}} for at in range(40)]
    await watched.service.batch(documents, actor=OPERATOR)
    frames = await read(await watched.small.open(Asked(start=Start.BEGINNING)))
    assert [len(frame["events"]) for frame in frames if frame["type"] == "changes"] == [40]
    assert [event["seq"] for event in frames[0]["events"]] == list(range(40))


async def test_what_leaves_the_selection_is_told_with_its_old_value(watched: Watched):
    watcher = await watched.hub.open(Asked(selector=watched.selector("labels.tier=backend")))
    await read(watcher)
    await watched.put("a", labels={"tier": "backend"})
    await watched.put("b", labels={"tier": "front"})
    await watched.put("a", labels={"tier": "front"})
    await watched.put("a", labels={"tier": "other"})
    await watched.put("b", labels={"tier": "backend"})
    await watched.delete("b")
    await watched.delete("a")
    await watched.put("last", labels={"tier": "backend"})
    found = await read_events(watcher, 5)
    assert [(op, name) for op, name, _ in events(found)] == [
        ("put", "a"), ("left", "a"), ("put", "b"), ("delete", "b"), ("put", "last"),
    ]  # fmt: skip
    assert found[1]["events"][0]["previous"]["labels"] == {"tier": "backend"}
    assert "record" not in found[1]["events"][0]


@pytest.mark.parametrize("small", [False, True])
async def test_it_goes_on_behind_any_cursor(watched: Watched, small: bool):
    for at in range(30):
        await watched.put(f"n{at % 7}", str(at))
    hub = watched.small if small else watched.hub
    whole = [each for each in await read(await hub.open(Asked(start=Start.BEGINNING))) if each["type"] == "changes"]
    assert [each["revision"] for each in whole] == list(range(1, 31))
    for place in (0, 3, 24, 28, 29):
        cursor = parse_cursor(whole[place]["cursor"])
        rest = await read(await hub.open(Asked(start=cursor)))
        assert [each for each in rest if each["type"] == "changes"] == whole[place + 1 :]


async def test_a_list_then_what_follows_it(watched: Watched):
    for at in range(450):
        await watched.put(f"n{at:03}", "1")
    watcher = await watched.small.open(Asked(start=Start.LIST, selector=watched.selector("kind=alias")))
    await watched.put("n000", "2")  # before the list is read: its state says which of the two it is in
    frames = await read(watcher)
    listed = {record["name"]: record["spec"]["command"] for frame in frames for record in frame.get("records", ())}
    assert len(listed) == 450
    revision = parse_cursor(frames[-1]["cursor"]).revision
    assert listed["n000"] == ("2" if revision == 451 else "1")
    for at in range(20):
        await watched.put("n001", str(2 + at))
    found = []
    while len(found) < 20:
        found += [each for each in events(await read(watcher, until="changes")) if each[1] == "n001"]
    assert found == [("put", "n001", str(2 + at)) for at in range(20)]
    await watcher.close()


async def test_an_idle_watcher_gets_bookmarks_and_its_cursor_moves(watched: Watched):
    watcher = await watched.hub.open(Asked(selector=watched.selector("name=never")))
    await read(watcher)
    for at in range(3):
        await watched.put("a", str(at))
    (frame,) = await watcher.next(wait=0)
    assert orjson.loads(frame.data)["type"] == "bookmark"
    assert frame.cursor is not None
    assert frame.cursor.revision == 3
    await watched.service.log.check_cursor(frame.cursor)


async def test_a_cursor_of_another_history_is_refused_with_one_to_go_on_from(watched: Watched):
    await watched.put("a")
    head = await watched.service.log.head()
    for cursor in (
        Cursor("0" * 12, 1, "0" * 8),
        head.cursor._replace(hash8="ffffffff"),
        head.cursor._replace(revision=9),
    ):
        with pytest.raises(CursorMismatch) as caught:
            await watched.hub.open(Asked(start=cursor))
        assert caught.value.data["cursor"] == str(head.cursor)


async def test_who_drops_is_given_the_place_to_go_on_from(watched: Watched):
    slow = await watched.hub.open(Asked(policy=Policy.DROP, most_lag=5))
    quick = await watched.hub.open(Asked())
    await read(slow)
    await read(quick)
    for at in range(10):
        await watched.put("a", str(at))
    assert len(events(await read_events(quick, 10))) == 10
    (last,) = await read(slow, until="end")
    assert await slow.next() == []
    assert watched.hub.figures().dropped == 1
    again = await watched.hub.open(Asked(start=parse_cursor(last["cursor"])))
    assert [value for _, _, value in events(await read(again))] == [str(at) for at in range(10)]


async def test_who_coalesces_is_told_the_newest_state_of_each(watched: Watched):
    for at in range(60):
        await watched.put(f"n{at % 3}", str(at))
    await watched.delete("n1")
    for at in range(5):
        await watched.put("z", str(at))
    frames = await read(await watched.small.open(Asked(start=Start.BEGINNING, policy=Policy.COALESCE)))
    newest = {name: (op, value) for op, name, value in events(frames)}
    assert newest == {"n0": ("put", "57"), "n2": ("put", "59"), "n1": ("delete", ""), "z": ("put", "4")}
    assert frames[0]["coalesced"] is True
    assert len(events(frames)) < 20


async def test_a_frame_is_made_once_for_all_that_are_told_the_same(watched: Watched):
    texts = ["", "kind=alias", "kind=alias", "name=a*"]
    watchers = [await watched.hub.open(Asked(selector=watched.selector(text))) for text in texts]
    for each in watchers:
        await read(each)
    await watched.put("a")
    frames = [(await each.next())[0] for each in watchers]
    assert all(frame is frames[0] for frame in frames)


async def test_secrets_are_kept_back(watched: Watched):
    watcher = await watched.hub.open(Asked())
    await read(watcher)
    for value in ("hush-1", "hush-2"):
        await watched.service.put(
            {"kind": "secret", "namespace": "default", "name": "s", "spec": {"value": value}}, actor=OPERATOR
        )
    found = await read_events(watcher, 2)
    assert b"hush" not in orjson.dumps(found)
    last = found[-1]["events"][0]
    assert last["record"]["spec"]["value"] == last["previous"]["spec"]["value"] == {"$secret": "kept"}


async def test_a_watcher_that_does_not_take_is_not_written_to(watched: Watched):
    """W12: the log is read once, however many watch; one that takes nothing causes no reading at all."""
    idle = [await watched.hub.open(Asked()) for _ in range(20)]
    quick = await watched.hub.open(Asked())
    await read(quick)
    reads = 0
    real = watched.service.log.passages

    async def counted(*args: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        return await real(*args, **more)

    watched.service.log.passages = counted  # type: ignore[method-assign]
    for at in range(10):
        await watched.put("a", str(at))
    await read_events(quick, 10)
    alone = reads
    for each in idle:
        await read_events(each, 10)
    assert alone <= 10
    assert reads == alone


async def test_the_end_of_the_server_is_told(watched: Watched):
    watcher = await watched.hub.open(Asked())
    await read(watcher)
    watched.hub.close()
    (frame,) = await read(watcher, until="end")
    assert frame["cursor"] == str(watcher.cursor)
    assert await watcher.next() == []


@pytest.mark.parametrize("small", [False, True], ids=["ring", "behind"])
async def test_what_is_missing_in_the_log_is_stated(watched: Watched, small: bool, monkeypatch: pytest.MonkeyPatch):
    hub = watched.small if small else watched.apart
    real = watched.service.log.passages

    async def holed(*args: Any, **more: Any) -> Any:
        return [each for each in await real(*args, **more) if each.change.revision not in (3, 4)]

    monkeypatch.setattr(watched.service.log, "passages", holed)
    watcher = await hub.open(Asked(start=Start.BEGINNING))
    for at in range(20):
        await watched.put("a", str(at))
    frames = await read_events(watcher, 18)
    assert [(each["first"], each["last"]) for each in frames if each["type"] == "gap"] == [(3, 4)]
    assert [each["revision"] for each in frames if each["type"] == "changes"] == [1, 2, *range(5, 21)]


async def test_a_history_that_is_rolled_back_ends_watches_with_a_cursor(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    await watched.put("a")
    watcher = await watched.hub.open(Asked())
    await read(watcher)

    async def mismatch(cursor: Cursor) -> None:
        raise CursorMismatch(f"cursor {cursor} is of another history", cursor="x")

    monkeypatch.setattr(watched.service.log, "check_cursor", mismatch)
    monkeypatch.setattr(watched.hub, "_checked", float("-inf"))
    watched.hub.on_commit()
    (frame,) = await read(watcher, until="end")
    assert frame["resync"] is True
    assert parse_cursor(frame["cursor"]) == (await watched.service.log.head()).cursor


async def test_a_commit_that_nobody_told_of_is_seen_within_a_second(watched: Watched):
    deaf = WatchHub(watched.service, WORLD)
    watcher = await deaf.open(Asked())
    await read(watcher)
    await watched.put("a")
    assert events(await read(watcher, until="changes")) == [("put", "a", "x")]


async def test_of_a_value_that_was_compacted_away_the_newest_is_told(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """Bodies below revision 5 are gone: as compaction leaves a log."""
    for at, (name, tier) in enumerate((("a", "in"), ("b", "in"), ("a", "out"), ("c", "in"), ("b", "in"), ("c", "out"))):
        await watched.put(name, str(at), labels={"tier": tier})
    real = watched.service.log.passages

    def compacted(passage: Passage) -> Passage:
        change = passage.change
        body = None if change.revision < 5 else change.body
        before = None  # every line before one of these is below revision 5
        return Passage(msgspec.structs.replace(change, body=body), before)

    async def passages(*args: Any, **more: Any) -> Any:
        return [compacted(each) for each in await real(*args, **more)]

    monkeypatch.setattr(watched.service.log, "passages", passages)
    selector = watched.selector("labels.tier=in")
    frames = await read(await watched.small.open(Asked(start=Start.BEGINNING, selector=selector)))
    told = [
        (event["op"], event["name"], event.get("compacted", False)) for f in frames for event in f.get("events", ())
    ]
    assert told == [("put", "b", True), ("left", "c", True)]


# --- lists that break off, histories that end, and what is kept in memory --------------------------------------------


async def test_a_list_that_breaks_off_gives_no_place_to_go_on_from(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """Else the part that was not told would be missed for good."""
    for at in range(201):
        await watched.put(f"n{at:03}")
    real = watched.service.pages

    async def broken(*args: Any, **more: Any) -> AsyncGenerator[Page, None]:
        async with aclosing(real(*args, **more)) as pages:
            yield await anext(pages)
            raise StorageUnavailable("the disk is gone")

    monkeypatch.setattr(watched.service, "pages", broken)
    watcher = await watched.hub.open(Asked(start=Start.LIST))
    assert [frame.kind for frame in await watcher.next()] == [FrameKind.RECORDS]
    with pytest.raises(StorageUnavailable):
        await watcher.next()
    last = watcher.broken("the disk is gone")
    assert orjson.loads(last.data) == {"type": "end", "why": "the disk is gone", "resync": True}
    assert last.cursor is None
    assert await watcher.next() == []
    await watcher.close()


async def test_a_list_that_the_end_of_the_server_cuts_is_to_be_read_anew(watched: Watched):
    for at in range(201):
        await watched.put(f"n{at:03}")
    watcher = await watched.hub.open(Asked(start=Start.LIST))
    await watcher.next()
    watched.hub.close()
    (frame,) = await watcher.next()
    told = orjson.loads(frame.data)
    assert (told["type"], told["resync"], "cursor" in told) == ("end", True, False)
    await watcher.close()


@pytest.mark.parametrize("length", [1, 8, 700], ids=["shorter", "as long", "far longer"])
async def test_a_history_that_was_replaced_is_noticed_when_somebody_else_begins(
    watched: Watched, length: int, request: pytest.FixtureRequest, tmp_path: Path
):
    for _ in range(2):
        await watched.put("a", "old")
        await watched.put("b", "old")
        await watched.delete("a")
        await watched.delete("b")
    watcher = await watched.hub.open(Asked())
    await read(watcher)
    (tmp_path / "other").mkdir()
    async with ENGINES[request.node.callspec.params["watched"]](tmp_path / "other") as other:
        await asyncio.gather(*(other.put(f"n{at}", "new") for at in range(length)))
        watched.service.log = other.service.log
        second = await watched.hub.open(Asked())
        (frame,) = await read(watcher, until="end")
        assert frame["resync"] is True
        assert parse_cursor(frame["cursor"]) == (await other.service.log.head()).cursor
        assert [each["type"] for each in await read(second)] == ["synced"]


async def test_a_history_that_is_shortened_while_somebody_begins_hangs_nobody(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    await watched.put("a")
    head = await watched.service.log.head()
    ahead = msgspec.structs.replace(head, revision=9) if isinstance(head, msgspec.Struct) else head._replace(revision=9)

    async def seen_before() -> Any:
        monkeypatch.undo()
        return ahead

    first = await watched.hub.open(Asked())
    monkeypatch.setattr(watched.service.log, "head", seen_before)
    async with asyncio.timeout(20):
        second = await watched.hub.open(Asked())
    assert second.cursor.revision == 1
    assert first.cursor.revision == 1


async def test_a_thousand_selectors_leave_little_behind_and_are_told_right(watched: Watched):
    watchers = [await watched.hub.open(Asked(selector=watched.selector(f"name=n{at}"))) for at in range(60)]
    for each in watchers:
        await read(each)
    await watched.service.batch(
        [{"op": "put", "kind": "alias", "name": f"n{at}", "spec": {"command": "v"}} for at in range(60)],
        actor=OPERATOR,
    )
    found = [events(await read_events(each, 1)) for each in watchers]
    assert found == [[("put", f"n{at}", "v")] for at in range(60)]
    (entry,) = watched.hub.ring.after(0)
    assert len(entry._by_view) + len(entry._by_told) < 40


async def test_fewer_lines_than_were_asked_for_are_all_there_are(watched: Watched):
    """Whoever reads on knows by it whether there is more."""
    for number in range(3):
        await watched.service.batch(
            [{"op": "put", "kind": "alias", "name": f"n{at}", "spec": {"command": f"{number}"}} for at in range(5)],
            actor=OPERATOR,
        )
    log = watched.service.log
    for limit, lines in ((1, 5), (5, 5), (6, 10), (10, 10), (14, 15), (15, 15), (16, 15)):
        passages = await log.passages(0, limit)
        assert [len(passages), passages[-1].change.seq] == [lines, 4], limit
    assert len(await log.passages(1, 9, upto=2)) == 5
    assert await log.passages(3, 9) == []


async def test_two_large_revisions_are_told_at_once(watched: Watched):
    watcher = await watched.hub.open(Asked())
    await read(watcher)
    for number in range(2):
        await watched.service.batch(
            [{"op": "put", "kind": "alias", "name": f"n{at}", "spec": {"command": f"{number}"}} for at in range(300)],
            actor=OPERATOR,
        )
    await watched.hub.advance()
    while not watched.hub.is_current:
        await watched.hub.advance()
    assert watched.hub.ring.end == (await watched.service.log.head()).cursor
    assert watcher.take(most_bytes=1 << 30) is not None
    await watched.service.log.check_cursor(watcher.cursor)
    listed = await read(await watched.hub.open(Asked(start=Start.LIST)))
    assert listed[-1]["cursor"] == str(watcher.cursor)


async def test_who_is_behind_holds_few_large_records(watched: Watched):
    for at in range(40):
        await watched.put(f"n{at}", "x" * 300_000)
    watcher = await watched.small.open(Asked(start=Start.BEGINNING))
    most = 0
    async with asyncio.timeout(20):
        while not watcher.is_at_end:
            await watcher.next()
            most = max(most, len(watcher._behind))
    assert 0 < most <= 16
    assert watcher._fits <= 8


async def test_nothing_is_told_of_a_commit_that_fails(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """What is made while the disk works counts for nothing until it has done so."""
    await watched.put("a", "1")
    watcher = await watched.hub.open(Asked())
    await read(watcher)
    await watched.put("a", "2")
    writer, prepared = watched.service._writer, []
    real = writer._store.batch

    @asynccontextmanager
    async def failing() -> AsyncIterator[Any]:
        async with real() as batch:
            yield batch
            await asyncio.sleep(0)  # as a disk takes its time
            prepared.extend(watched.service.newest.coming())
            raise StorageUnavailable("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(writer._store, "batch", failing)
        with pytest.raises(StorageUnavailable):
            await watched.put("a", "lost")
    assert [each.change.op for each in prepared] == ["put"]
    assert watched.service.newest.coming() == ()
    watched.hub.on_commit()
    await watched.put("a", "3")
    found = await read_events(watcher, 2)
    assert [event["previous"]["spec"]["command"] for frame in found for event in frame["events"]] == ["1", "2"]
    assert events(found) == [("put", "a", "2"), ("put", "a", "3")]


async def test_what_the_writer_knows_of_the_newest_lines_is_what_the_log_says(watched: Watched):
    """In order, with the values before them, whatever happened to a record within a group."""
    known: list[Passage] = []
    watched.service.newest.on_coming(lambda: known.extend(watched.service.newest.coming()))
    await watched.put("a", "1")
    await watched.put("a", "2")
    await asyncio.gather(watched.put("a", "3"), watched.put("a", "4"), watched.delete("a"), watched.put("a", "5"))
    await asyncio.gather(*(watched.put(name, str(at)) for at in range(6) for name in ("a", "b")))
    await watched.service.emit(Key("alias", "default", "a"), {"n": 1}, actor=OPERATOR, session="s", audience=())
    await watched.delete("a")
    written = list(await watched.service.log.passages(0, 100))
    assert known == written


@pytest.mark.parametrize(("lines", "first"), [(4, "watcher"), (100, "writer")])
async def test_who_wrote_much_is_answered_before_others_are_told(watched: Watched, lines: int, first: str):
    """Of little, watchers hear before the writer has his answer, and both hear all."""
    watcher = await watched.hub.open(Asked())
    await read(watcher)
    order: list[str] = []
    watched.hub.on_advance(lambda: order.append("watcher"))
    operations = [{"op": "put", "kind": "alias", "name": f"n{at}", "spec": {"command": "v"}} for at in range(lines)]
    await watched.service.batch(operations, actor=OPERATOR)
    order.append("writer")
    assert len((await read_events(watcher, lines))[-1]["events"]) == lines
    await asyncio.sleep(0)  # a turn of the loop
    assert order[0] == first
    assert "watcher" in order
