"""What is particular to lanes on PostgreSQL; what both engines do is in tests/conformance."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from universal_registry.kernel.errors import NewerStore, ReadOnlyStore, StorageUnavailable
from universal_registry.kernel.settings import PostgresSettings, RetrySettings
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.lane import (
    Attempt,
    Backfill,
    Counters,
    Delivery,
    DeliveryState,
    Lane,
    Position,
    Session,
    Settlements,
)
from universal_registry.storage.lanes_postgres import PgLanes
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.sqlfiles import load_migrations

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WORLD = SystemWorld()
COLUMNS = {
    "propagation_sessions": "session_id, source_id, mode, status, created_at, last_activity",
    "propagation_targets": "session_id, target_id, target_type, protocol, endpoint, status, created_at",
    "propagation_events": "session_id, event_type, source_id, target_id, payload, status, created_at",
    "webhook_queue": "webhook_id, payload, retry_count, max_retries, status, created_at, updated_at",
    "stream_metrics": "stream_id, direction, message_count, byte_count, latency_ms, last_update",
    "nexus_sync_log": "registry_entry_id, nexus_component_id, sync_direction, payload, status, created_at",
    "execution_log": "component_id, action, status, details, created_at",
    "propagation_metrics": "metric, value",
    "propagation_logs": "session_id, target_id, level, message, created_at",
}
QUEUE_QUERY = "SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry');"
WEBHOOK_QUERY = "SELECT COUNT(*) FROM webhook_queue WHERE status='pending';"


@asynccontextmanager
async def daemon(settings: PostgresSettings, **more: Any) -> AsyncIterator[PgLanes]:
    """The propagation store as one more daemon holds it."""
    database = await PgDatabase.open(settings, "propagation", WORLD)
    try:
        yield PgLanes(database, WORLD, **more)
    finally:
        await database.close()


@pytest.fixture
async def store(database: PostgresSettings) -> AsyncIterator[PgLanes]:
    async with daemon(database) as one:
        yield one


@pytest.fixture
def sql(postgres: Any, database: PostgresSettings, store: PgLanes) -> Callable[[str], list[str]]:
    """Runs a statement with the server's own client, as the role that owns the schema."""
    return lambda text: postgres.sql(text, database.name).splitlines()


def lane(name: str = "one", **changes: Any) -> Lane:
    fields = {
        "lane_id": f"lane-{name}",
        "target_uid": name,
        "target_namespace": "system",
        "target_name": name,
        "transport": "webhook",
        "owner": "boot-1",
        "generation": 1,
        "incarnation": "a" * 32,
        "position": Position(10, 0),
    }
    return Lane(**{**fields, **changes})


def row(revision: int, state: str = "pending", *, on: str = "one", **changes: Any) -> Delivery:
    fields = {
        "delivery_id": f"dlv_{on}_{revision}",
        "lane_id": f"lane-{on}",
        "session_id": "standing",
        "route_uid": "standing",
        "op": "put",
        "kind": "service",
        "namespace": "default",
        "name": f"svc-{revision}",
        "revision": revision,
        "seq": 0,
        "state": DeliveryState(state),
        "next_at": NOW if state == "waiting" else None,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Delivery(**{**fields, **changes})


def session(session_id: str, *targets: str, state: str = "running") -> Session:
    return Session(
        session_id=session_id,
        mode="unidirectional",
        source="service/default/a",
        targets=tuple(f"system/{target}" for target in targets),
        standing=session_id == "standing",
        state=state,
        revision=10,
        created_at=NOW,
        last_activity=NOW,
    )


def attempt(delivery_id: str, number: int = 0, **changes: Any) -> Attempt:
    fields = {
        "delivery_id": delivery_id,
        "lane_id": "lane-one",
        "number": number,
        "at": NOW,
        "outcome": "failed",
        "status": 503,
        "milliseconds": 1.0,
        "reason": "busy",
    }
    return Attempt(**{**fields, **changes})


async def fill(store: PgLanes) -> None:
    """A row in each state for one target, and one-shot sessions that have come to their ends in every way."""
    rows = [row(n, state) for n, state in enumerate(("pending", "sending", "waiting", "dead", "cancelled"), 1)]
    rows[2] = row(3, "waiting", attempts=3)
    sessions = (
        session("standing", "one"),
        session("done", "one", "gone", state="succeeded"),
        session("half", "one", "two", "three", "gone"),
    )
    await store.apply(
        Settlements(
            lanes=(lane(), lane("two", position=Position(9, 5)), lane("three", position=Position(10, -1))),
            upserts=(*rows, row(20, "dead", session_id="half", op="event", on="two")),
            attempts=(attempt("dlv_one_3"), attempt("dlv_gone")),
            sessions=sessions,
            counters=Counters(executed=5, delivered=4, retried=3, failed=2, messages=1),
        )
    )
    await store.claim("boot-1", NOW, NOW)


# --- the names and words that scripts use -----------------------------------------------------------------------------


@pytest.mark.parametrize("table", COLUMNS)
async def test_every_name_has_exactly_its_columns_for_whoever_comes_in_with_psql(
    store: PgLanes, sql: Callable[[str], list[str]], table: str
) -> None:
    await fill(store)
    sql("INSERT INTO stream_metrics VALUES ('s', 'out', 1, 2, 0.5, '2026-03-01T12:00:00.000Z')")
    sql(
        "INSERT INTO studio_syncs (studio, entry, component, direction, way, revision, status, reason, created_at,"
        " updated_at) VALUES ('s', 'e', 'c', 'broadcast', 'pull', 1, 'executed', '', 'now', 'now')"
    )
    found = sql(
        f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' ORDER BY ordinal_position"
    )
    assert found == COLUMNS[table].split(", ")
    assert sql(f"SELECT {COLUMNS[table]} FROM {table}")


async def test_inner_states_are_shown_in_the_words_of_the_names(
    store: PgLanes, sql: Callable[[str], list[str]]
) -> None:
    await fill(store)
    events = sql("SELECT session_id, source_id, target_id, payload, status FROM propagation_events")
    assert [event.rpartition("|")[2] for event in events[:5]] == ["pending", "pending", "retry", "failed", "cancelled"]
    assert events[0] == "standing|service/default/svc-1|system/one|sealed:log:1.0|pending"
    assert "half|service/default/svc-20|system/two|sealed:log:20.0|failed" in events
    assert sorted(event for event in events if event.endswith("executed")) == [
        f"{session}|service/default/a|system/{target}|sealed:log:10|executed"
        for session, target in (("done", "gone"), ("done", "one"), ("half", "one"))
    ]
    assert len(events) == 6 + 3
    assert set(sql("SELECT substr(payload, 1, 11) FROM webhook_queue")) == {"sealed:log:"}


async def test_progress_at_each_target_of_a_session(store: PgLanes, sql: Callable[[str], list[str]]) -> None:
    await fill(store)
    assert sorted(sql("SELECT session_id, target_id, status, protocol FROM propagation_targets")) == [
        "done|system/gone|executed|",
        "done|system/one|executed|webhook",
        "half|system/gone|cancelled|",
        "half|system/one|executed|webhook",
        "half|system/three|pending|webhook",
        "half|system/two|failed|webhook",
        "standing|system/one|failed|webhook",
    ]


async def test_a_standing_session_goes_through_the_words_too(store: PgLanes, sql: Callable[[str], list[str]]) -> None:
    async def status(*rows: Delivery, **changes: Any) -> list[str]:
        await store.apply(Settlements(lanes=(lane(**changes),), upserts=rows))
        return sql("SELECT status FROM propagation_targets")

    await store.apply(Settlements(sessions=(session("standing", "one"),)))
    assert sql("SELECT status FROM propagation_targets") == ["pending"]
    assert await status(backfill=Backfill(route_uid="standing", upto=10, at=3)) == ["pending"]
    assert await status() == ["executed"]
    assert await status(row(1), row(2, "cancelled")) == ["pending"]
    assert await status(row(1, "waiting")) == ["retry"]
    assert await status(row(1, "dead")) == ["failed"]
    assert sql("SELECT count(*) FROM propagation_events WHERE status = 'executed'") == ["0"]


async def test_the_webhook_queue_holds_webhooks_only_and_counts_retries(
    store: PgLanes, sql: Callable[[str], list[str]], database: PostgresSettings
) -> None:
    await fill(store)
    await store.apply(Settlements(lanes=(lane("s", transport="stream"),), upserts=(row(1, on="s"),)))
    queue = sql("SELECT webhook_id, retry_count, max_retries, status FROM webhook_queue")
    assert {"dlv_one_1|0|13|pending", "dlv_one_3|2|13|retry"} < set(queue)
    assert len(queue) == 6
    for retry, wanted in ((RetrySettings(slow_phase=False), "5"), (RetrySettings(enabled=False), "0")):
        async with daemon(database, retry=retry) as other:
            await other.claim("boot-1", NOW, NOW)
        assert sql("SELECT DISTINCT max_retries FROM webhook_queue") == [wanted]


async def test_the_metrics_logs_and_executions_under_their_names(
    store: PgLanes, sql: Callable[[str], list[str]]
) -> None:
    await fill(store)
    metrics = dict(line.split("|") for line in sql("SELECT metric, value FROM propagation_metrics"))
    assert metrics == {
        "propagation.executed": "5",
        "webhook.delivered": "4",
        "webhook.retry": "3",
        "webhook.failed": "2",
        "stream.messages": "1",
        "health.queue_depth": "3",
        "health.webhooks_pending": "2",
    }
    depth = await store.depth()
    assert sql(QUEUE_QUERY + WEBHOOK_QUERY) == [str(depth.queue_depth), str(depth.webhooks_pending)] == ["3", "2"]
    assert sorted(sql("SELECT session_id, target_id, level, message FROM propagation_logs")) == [
        "standing|system/one|warning|failed: busy",
        "|system/one|warning|failed: busy",
    ]
    assert sorted(sql("SELECT component_id, action, status FROM execution_log")) == [
        "system/gone|deliver|executed",
        *["system/one|deliver|executed"] * 2,
        *["system/one|deliver|failed"] * 2,
    ]


# --- rules that hold whoever writes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE attempts SET reason = 'never happened'",
        "UPDATE deliveries SET revision = 1",
        "UPDATE deliveries SET name = 'other'",
        "INSERT INTO attempts VALUES (DEFAULT, 'd', 'no-lane', 0, '', '', NULL, 0, '')",
        "UPDATE deliveries SET state = 'lost'",
        "UPDATE deliveries SET state = 'waiting', next_at = NULL",
        "UPDATE deliveries SET live = 0",
        "UPDATE lanes SET breaker = 'broken'",
    ],
)
async def test_what_was_tried_cannot_be_changed_nor_a_delivery_moved(
    store: PgLanes, sql: Callable[[str], list[str]], statement: str
) -> None:
    await fill(store)
    before = (await store.deliveries(), await store.lanes(), await store.attempts("dlv_one_3"))
    with pytest.raises(Exception, match="non-zero exit status"):
        sql(f"SET search_path = propagation; {statement}")
    assert (await store.deliveries(), await store.lanes(), await store.attempts("dlv_one_3")) == before


async def test_counts_and_heads_stay_true_when_rows_are_edited_by_hand(
    store: PgLanes, sql: Callable[[str], list[str]]
) -> None:
    await fill(store)
    await store.apply(Settlements(lanes=(lane(),), upserts=(row(6, name="svc-1"), row(7, name="svc-2"))))
    sql("DELETE FROM deliveries WHERE state IN ('sending', 'dead')")
    sql("UPDATE deliveries SET state = 'pending' WHERE state = 'cancelled'")
    sql("UPDATE deliveries SET state = 'dead' WHERE delivery_id = 'dlv_one_1'")
    counts = {each.lane_id: (each.rows, each.dead) for each in await store.lanes()}
    assert counts == {"lane-one": (4, 1), "lane-two": (0, 0), "lane-three": (0, 0)}
    assert [each.revision for each in await store.due("lane-one", NOW, 9)] == [3, 5, 6, 7]
    depth = await store.depth()
    assert (depth.queue_depth, depth.webhooks_pending, depth.waiting, depth.dead) == (4, 3, 1, 1)


# --- several daemons --------------------------------------------------------------------------------------------------


async def held(store: PgLanes, boot: str, at: float, seconds: float = 30, **more: Any) -> list[str]:
    """The lanes of a daemon after a claim, so many seconds after NOW."""
    now = NOW + at * SECOND
    claimed = await store.claim(boot, now, now + seconds * SECOND, **more)
    assert claimed.lanes is not None
    return [each.lane_id.removeprefix("lane-") for each in claimed.lanes]


async def free_lanes(store: PgLanes, count: int) -> list[str]:
    """So many lanes that nobody has."""
    names = [f"{number:02d}" for number in range(count)]
    await store.apply(Settlements(lanes=tuple(lane(name, owner="", generation=0) for name in names)))
    return names


async def shares(store: PgLanes) -> dict[str, int]:
    return dict(Counter(each.owner for each in await store.lanes()))


async def test_a_lane_is_anothers_only_when_its_owners_lease_has_ended(
    store: PgLanes, database: PostgresSettings
) -> None:
    async with daemon(database) as other:
        names = await free_lanes(store, 2)
        assert await held(store, "boot-1", 0) == names
        assert await held(other, "boot-2", 29) == []
        assert await held(store, "boot-1", 20) == names
        assert await held(other, "boot-2", 49) == []
        assert await held(other, "boot-2", 50) == names
        assert [(each.owner, each.generation) for each in await store.lanes()] == [("boot-2", 2)] * 2
        assert await held(store, "boot-1", 51) == []


async def test_a_lease_that_ends_now_gives_everything_up(store: PgLanes, database: PostgresSettings) -> None:
    async with daemon(database) as other:
        names = await free_lanes(store, 2)
        await held(store, "boot-1", 0)
        await held(store, "boot-1", 1, seconds=0)
        assert await held(other, "boot-2", 1) == names, "all, and not the half: the other one has gone"


async def test_a_lease_from_before_the_clock_went_back_an_hour_is_none(
    store: PgLanes, database: PostgresSettings
) -> None:
    async with daemon(database) as other:
        names = await free_lanes(store, 2)
        await held(store, "boot-1", 3600)
        assert await held(other, "boot-2", 0) == names
        assert await held(other, "boot-2", 3600) == names


async def test_a_renewal_says_nothing_of_the_lanes_while_they_are_those_that_are_known(
    store: PgLanes, database: PostgresSettings
) -> None:
    await free_lanes(store, 2)
    until = NOW + 30 * SECOND
    assert (await store.claim("boot-1", NOW, until, holding=2)).lanes is not None, "it had none before"
    assert (await store.claim("boot-1", NOW, until, holding=2)).lanes is None
    assert len(await held(store, "boot-1", 0, holding=1)) == 2, "an answer was lost"
    later = NOW + 31 * SECOND
    async with daemon(database) as other:
        await other.claim("boot-2", later, later + SECOND)
    claimed = await store.claim("boot-1", later, later + 30 * SECOND, holding=2)
    assert claimed.lanes == [], "as many as ever could be those of another owner meanwhile"


@pytest.mark.parametrize(
    ("lanes", "daemons", "expected"),
    [(9, 3, [3, 3, 3]), (9, 2, [4, 5]), (9, 4, [2, 2, 2, 3]), (4, 3, [1, 1, 2]), (1, 3, [0, 0, 1]), (0, 2, [])],
)
@pytest.mark.parametrize("order", ["all at once", "one after the other"])
async def test_lanes_are_shared_out_evenly_and_then_stay_where_they_are(
    store: PgLanes, lanes: int, daemons: int, expected: list[int], order: str
) -> None:
    await free_lanes(store, lanes)
    having: dict[str, list[str]] = {f"boot-{number}": [] for number in range(daemons)}
    leaving: dict[str, list[str]] = {boot: [] for boot in having}
    moved = []
    for turn in range(12):
        for place, boot in enumerate(having):
            if order == "one after the other" and turn < place:
                continue
            before = having[boot]
            having[boot] = await held(store, boot, 3 * turn, leaving=leaving[boot])
            moved += [turn for name in having[boot] if name not in before]
            claimed = await store.claim(boot, NOW + 3 * turn * SECOND, NOW + (3 * turn + 30) * SECOND)
            assert claimed.lanes is not None
            having[boot] = [each.lane_id.removeprefix("lane-") for each in claimed.lanes]
            leaving[boot] = [each.lane_id for each in claimed.lanes[claimed.share :]]
    found = sorted((await shares(store)).values())
    assert found == [each for each in expected if each]
    assert max(moved, default=0) <= daemons + 2, "they go to and fro"


async def test_nothing_is_left_to_a_daemon_that_may_be_dead(store: PgLanes) -> None:
    """Two of three die, one after the other: what the first had does not wait for the end of the second."""
    await free_lanes(store, 9)
    await held(store, "boot-2", 0)
    for turn in range(4):  # all three come to have three
        for boot in ("boot-1", "boot-2", "boot-3"):
            claimed = await store.claim(boot, NOW + turn * SECOND, NOW + (turn + 30) * SECOND)
            extra = [each.lane_id for each in claimed.lanes or ()][claimed.share :]
            await store.claim(boot, NOW + turn * SECOND, NOW + (turn + 30) * SECOND, leaving=extra)
    assert await shares(store) == {"boot-1": 3, "boot-2": 3, "boot-3": 3}
    for second in (10, 20):
        await held(store, "boot-1", second)
        await held(store, "boot-3", second)
    await held(store, "boot-1", 30)
    assert len(await held(store, "boot-1", 34)) == 5, "its share: boot-2 has ended, boot-3 not been heard of for 14 s"
    for second in (44, 54):
        mine = await held(store, "boot-1", second)
    assert len(mine) == 9


async def test_a_lane_that_its_owner_is_writing_is_skipped(store: PgLanes, database: PostgresSettings) -> None:
    """As between a slow commit and a claim: nobody waits for a lane of others."""
    await store.apply(Settlements(lanes=(lane(), lane("two"))))
    blocker = await PgDatabase.open(database, "propagation", WORLD)
    try:
        async with daemon(database) as other:
            async with blocker.transaction() as connection:
                await connection.execute("SELECT 1 FROM lanes WHERE lane_id = 'lane-one' FOR UPDATE")
                assert await held(other, "boot-2", 0) == ["two"]
            assert await held(other, "boot-2", 1) == ["one", "two"]
    finally:
        await blocker.close()


async def test_claims_at_the_same_moment_never_give_a_lane_to_two(store: PgLanes, database: PostgresSettings) -> None:
    async with daemon(database) as second, daemon(database) as third:
        names = await free_lanes(store, 30)
        for turn in range(5):  # each time the leases of the last turn have ended
            boots = [(each, f"boot-{turn}-{number}") for number, each in enumerate((store, second, third))]
            found = await asyncio.gather(*(held(each, boot, 60 * turn) for each, boot in boots))
            assert sorted(name for each in found for name in each) == sorted({name for each in found for name in each})
            found = await asyncio.gather(*(held(each, boot, 60 * turn + 1) for each, boot in boots))
            assert sorted(name for each in found for name in each) == names


async def test_a_lane_that_two_daemons_make_has_one_owner(store: PgLanes, database: PostgresSettings) -> None:
    async with daemon(database) as other:
        for turn in range(10):
            names = [f"{turn}-{each}" for each in range(4)]
            makers = []
            for boot, maker in (("boot-1", store), ("boot-2", other)):
                lanes = tuple(lane(name, owner=boot) for name in names)
                rows = tuple(row(1, on=name, reason=boot) for name in names)
                makers.append(maker.apply(Settlements(lanes=lanes[:: 1 if boot == "boot-1" else -1], upserts=rows)))
            await asyncio.gather(*makers)
            made = {each.lane_id: each.owner for each in await store.lanes() if each.target_name in names}
            written = {each.lane_id: each.reason for each in await store.deliveries() if each.lane_id[5:] in names}
            assert made == written
            assert len(made) == 4


async def test_daemons_that_write_at_once_wait_for_each_other_and_lose_nothing(
    store: PgLanes, database: PostgresSettings
) -> None:
    """Lanes of their own, sessions and counters in common, those in opposite orders."""
    async with daemon(database) as second, daemon(database) as third:

        async def work(maker: PgLanes, number: int) -> None:
            name = f"lane{number}"
            mine = lane(name, owner=f"boot-{number}")
            for turn in range(25):
                sessions = tuple(session(f"s{each}", name, state=f"{number}.{turn}") for each in range(60))
                await maker.apply(
                    Settlements(
                        lanes=(mine,),
                        upserts=tuple(row(10 * turn + each, on=name) for each in range(5)),
                        removed=((mine.lane_id, f"dlv_{name}_{10 * (turn - 1)}"),),
                        sessions=sessions[:: 1 if number % 2 else -1],
                        counters=Counters(delivered=1, failed=2),
                    )
                )

        await asyncio.gather(*(work(maker, number) for number, maker in enumerate((store, second, third))))
        depth = await store.depth()
        assert depth.counters == Counters(delivered=75, failed=150)
        assert depth.queue_depth == 3 * (25 * 5 - 24)
        assert {len({each.state.partition(".")[2] for each in await store.sessions()})} == {1}


async def test_a_daemon_wakes_up_for_its_own_lanes_only(store: PgLanes, database: PostgresSettings) -> None:
    until = NOW + 30 * SECOND
    mine, others = lane(), lane("two", owner="boot-2")
    soon, late = NOW + SECOND, NOW + 9 * SECOND
    rows = (row(1, "waiting", next_at=late), row(2, "waiting", next_at=soon, on="two"))
    await store.apply(Settlements(lanes=(mine, others), upserts=rows))
    assert await store.next_due() == soon
    async with daemon(database) as second:
        await second.claim("boot-2", NOW, until)  # takes both
        await store.claim("boot-1", NOW, until)
        await second.claim("boot-2", NOW, until, leaving=["lane-one"])
        await store.claim("boot-1", NOW, until)
        assert (await store.next_due(), await second.next_due()) == (late, soon)
    async with daemon(database) as third:
        await third.claim("boot-3", NOW, until)
        assert await third.next_due() is None


# --- answers that are lost --------------------------------------------------------------------------------------------


class Line:
    """A socket in front of the server's. `swallow`: so many answers to settlements are kept from the daemon."""

    def __init__(self, server: str, folder: Path) -> None:
        self.folder = folder
        self.swallow = 0
        self._server = f"{server}/.s.PGSQL.5432"
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Line]:
        listening = await asyncio.start_unix_server(self._serve, self.folder / ".s.PGSQL.5432")
        try:
            yield self
        finally:
            listening.close()
            for task in self._tasks:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._server)
        mute = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(1 << 20):
                if self.swallow and b'"writer"' in data:
                    self.swallow -= 1
                    mute.set()
                server_writer.write(data)
            server_writer.close()

        async def answer() -> None:
            while data := await server_reader.read(1 << 20):
                if mute.is_set():
                    writer.close()
                    return
                writer.write(data)
            writer.close()

        for work in (ask(), answer()):
            task = asyncio.create_task(work)
            self._tasks.add(task)


@pytest.fixture
async def line(postgres: Any) -> AsyncIterator[Line]:
    folder = Path(tempfile.mkdtemp(prefix="line-", dir="/tmp"))  # a socket's path must be short
    try:
        async with Line(str(postgres.folder), folder).open() as opened:
            yield opened
    finally:
        shutil.rmtree(folder)


def behind(line: Line, database: PostgresSettings) -> PostgresSettings:
    return PostgresSettings(host=str(line.folder), name=database.name, user=database.user)


async def test_a_settlement_whose_answer_is_lost_is_found_stored(line: Line, database: PostgresSettings) -> None:
    async with daemon(behind(line, database)) as store:
        await store.apply(Settlements(lanes=(lane(),)))
        line.swallow = 1
        tried = (attempt("dlv_one_1"), attempt("dlv_one_1"))
        await store.apply(
            Settlements(lanes=(lane(),), upserts=(row(1),), attempts=tried, counters=Counters(failed=2, retried=1))
        )
        assert line.swallow == 0
        assert (await store.depth()).counters == Counters(failed=2, retried=1)
        assert await store.attempts("dlv_one_1") == list(tried)


async def test_what_is_given_again_with_more_is_not_added_twice(line: Line, database: PostgresSettings) -> None:
    """The answers to all tries are lost, so that the engine must give it again, and by then it has more to say."""
    async with daemon(behind(line, database)) as store:
        await store.apply(Settlements(lanes=(lane(),), counters=Counters(executed=1)))
        first = Settlements(
            lanes=(lane(),), upserts=(row(1),), attempts=(attempt("dlv_one_1"),), counters=Counters(failed=1)
        )
        line.swallow = 100
        with pytest.raises(StorageUnavailable):
            await store.apply(first)
        more = replace(
            first,
            upserts=(row(1, "dead"), row(2)),
            attempts=(*first.attempts, attempt("dlv_one_1", 1)),
            counters=Counters(failed=3, delivered=5),
        )
        with pytest.raises(StorageUnavailable):
            await store.apply(more)
        line.swallow = 0
        most = replace(
            more, attempts=(*more.attempts, attempt("dlv_two_1", 2)), counters=Counters(failed=4, delivered=5)
        )
        await store.apply(most)
        assert (await store.depth()).counters == Counters(executed=1, failed=4, delivered=5)
        assert await store.attempts("dlv_one_1") == list(more.attempts)
        assert await store.attempts("dlv_two_1") == [attempt("dlv_two_1", 2)]
        assert await store.deliveries() == [row(1, "dead"), row(2)]
        await store.apply(replace(first, counters=Counters(failed=1)))
        assert (await store.depth()).counters.failed == 5


async def test_what_was_not_stored_goes_in_when_it_is_given_again(
    store: PgLanes, postgres: Any, database: PostgresSettings
) -> None:
    """The backend ends while it waits for a lane: nothing of that try may be missing later, nor be there twice."""
    await store.apply(Settlements(lanes=(lane(),)))
    async with daemon(database) as blocking:
        settlements = Settlements(
            lanes=(lane(),), upserts=(row(1),), attempts=(attempt("dlv_one_1"),), counters=Counters(failed=1)
        )
        async with blocking._db.transaction() as connection:
            await connection.execute("SELECT 1 FROM lanes WHERE lane_id = 'lane-one' FOR UPDATE")
            applying = asyncio.create_task(store.apply(settlements))
            waiting = "SELECT pid FROM pg_locks WHERE NOT granted LIMIT 1"
            while (pid := await connection.fetchval(waiting)) is None:
                assert not applying.done()
            applying.cancel()
            with suppress(asyncio.CancelledError):
                await applying
            postgres.sql(f"SELECT pg_terminate_backend({pid})")
        assert await store.deliveries() == []
        await store.apply(replace(settlements, counters=Counters(failed=2)))
        assert (await store.depth()).counters == Counters(failed=2)
        assert await store.attempts("dlv_one_1") == [attempt("dlv_one_1")]
        assert await store.deliveries() == [row(1)]


async def test_a_nul_in_the_words_of_the_far_side_stops_nothing(store: PgLanes) -> None:
    words = "a\0b \\u0000 \\\0"
    tried = attempt("dlv_one_1", reason=words)
    await store.apply(Settlements(lanes=(lane(last_error=words),), upserts=(row(1, reason=words),), attempts=(tried,)))
    kept = words.replace("\0", "\ufffd")
    assert [each.last_error for each in await store.lanes()] == [kept]
    assert [each.reason for each in await store.deliveries()] == [kept]
    assert [each.reason for each in await store.attempts("dlv_one_1")] == [kept]


# --- opening ----------------------------------------------------------------------------------------------------------


async def test_opened_for_reading_it_writes_nothing(store: PgLanes, database: PostgresSettings) -> None:
    await fill(store)
    reading = await PgDatabase.open(database, "propagation", WORLD, read_only=True)
    try:
        lanes = PgLanes(reading, WORLD)
        assert await lanes.lanes() == await store.lanes()
        with pytest.raises(ReadOnlyStore):
            await lanes.apply(Settlements(counters=Counters(failed=1)))
        with pytest.raises(ReadOnlyStore):
            await lanes.claim("boot-2", NOW, NOW)
    finally:
        await reading.close()


async def test_daemons_that_start_together_make_the_schema_once_and_a_newer_one_is_refused(postgres: Any) -> None:
    settings = postgres.database("lanes_together")
    opened = await asyncio.gather(*(PgDatabase.open(settings, "propagation", WORLD) for _ in range(4)))
    for each in opened:
        await each.close()
    numbers = [str(step.number) for step in load_migrations("propagation", "postgres")]
    assert postgres.sql("SELECT number FROM propagation.migrations ORDER BY 1", settings.name).split() == numbers
    postgres.sql("INSERT INTO propagation.migrations (number, name) VALUES (99, 'later')", settings.name)
    with pytest.raises(NewerStore, match="99"):
        await PgDatabase.open(settings, "propagation", WORLD)


# --- what it costs ----------------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[int, int], Delivery]] = {
    "pending": lambda n, _: row(n),
    "one record": lambda n, _: row(n, name="svc"),
    "all past their time": lambda n, _: row(n, "waiting", next_at=NOW - timedelta(seconds=n % 900)),
    "nearly none past their time": lambda n, count: row(
        n, "waiting", next_at=NOW - SECOND if n > count - 20 else NOW + timedelta(hours=1)
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_finding_what_is_due_and_settling_it_cost_the_same_among_few_and_many_rows(
    postgres: Any, shape: str
) -> None:
    """Counted in pages of the server's buffers. No statistics are gathered, as in the first minute of a burst."""
    few, many = [await pages(postgres.database(f"{shape} {count}"), shape, count) for count in (2000, 8000)]
    for name, cost in few.items():
        assert many[name] <= cost * 1.5 + 50, (name, few, many)


async def pages(settings: PostgresSettings, shape: str, count: int) -> dict[str, int]:
    """What each of the calls of a tick touches, by the plans that a connection which has been at work for long uses."""
    async with daemon(settings) as store:
        mine, elsewhere = lane(), lane("two")
        await store.apply(Settlements(lanes=(mine, elsewhere), upserts=(row(10**6), row(10**6, on="two"))))
        await store.claim("boot-1", NOW, NOW + SECOND)
        make = SHAPES[shape]
        for start in range(0, count, 500):
            rows = tuple(make(n, count) for n in range(start, start + 500))
            await store.apply(Settlements(lanes=(mine,), upserts=rows))
        due = await store.due("lane-one", NOW, 10)
        assert len(due) == (2 if shape == "one record" else 10)
        sql, ledger = store._sql, store._ledger
        sending = Settlements(lanes=(mine,), upserts=tuple(replace(each, state=DeliveryState.SENDING) for each in due))
        fresh = Settlements(lanes=(mine,), upserts=tuple(make(10**7 + n, 0) for n in range(10)))
        removed = Settlements(lanes=(mine,), removed=tuple((each.lane_id, each.delivery_id) for each in due))
        calls: dict[str, tuple[str, tuple[Any, ...]]] = {
            "due": (sql["due"], ("lane-one", "2026-03-01T12:00:00.000Z", 10)),
            "next_due": (sql["next_due"], ("boot-1",)),
            "depth": (sql["depth"], ()),
            "blocked_keys": (sql["blocked_keys"], ("lane-one", ["service"], ["default"], ["svc-7"])),
            "sending": (sql["settle"], (ledger.document(sending),)),
            "fresh": (sql["settle"], (ledger.document(fresh),)),
            "removed": (sql["settle"], (ledger.document(removed),)),
        }
        found = {}
        async with store._db.transaction() as connection:
            for name, (text, arguments) in calls.items():
                (plan,) = json.loads(
                    await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *arguments)
                )
                found[name] = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        return found
