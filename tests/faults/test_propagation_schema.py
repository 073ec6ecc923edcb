"""The propagation store's file: the names that scripts use, what its queries cost, and a migration that is killed."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from universal_registry.kernel.errors import NewerStore
from universal_registry.kernel.settings import RetrySettings
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
from universal_registry.storage.database import Database
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.sqlfiles import load_migrations, load_queries

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
QUEUE_QUERY = "SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry');"
WEBHOOK_QUERY = "SELECT COUNT(*) FROM webhook_queue WHERE status='pending';"
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
needs_sqlite3 = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the system has no sqlite3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lanes.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database.open(path, "propagation")
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> SqliteLanes:
    return SqliteLanes(database)


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


def session(session_id: str, *targets: str, state: str = "running", revision: int = 10) -> Session:
    return Session(
        session_id=session_id,
        mode="unidirectional",
        source="service/default/a",
        targets=tuple(f"system/{target}" for target in targets),
        standing=session_id == "standing",
        state=state,
        revision=revision,
        created_at=NOW,
        last_activity=NOW,
    )


def attempt(delivery_id: str) -> Attempt:
    return Attempt(
        delivery_id=delivery_id,
        lane_id="lane-one",
        number=0,
        at=NOW,
        outcome="failed",
        status=503,
        milliseconds=1,
        reason="busy",
    )


# --- the names and words that scripts use -----------------------------------------------------------------------------


@pytest.mark.parametrize("table", COLUMNS)
def test_every_name_has_exactly_its_columns(database: Database, table: str) -> None:
    wanted = COLUMNS[table].split(", ")
    assert [name for (name,) in database.read("SELECT name FROM pragma_table_info(?)", (table,))] == wanted
    assert isinstance(database.read(f"SELECT {COLUMNS[table]} FROM {table}"), list)


@needs_sqlite3
@pytest.mark.parametrize("table", COLUMNS)
async def test_the_systems_sqlite3_reads_every_column_with_rows_in_it(
    path: Path, database: Database, store: SqliteLanes, table: str
) -> None:
    await fill(store)
    async with database.transaction():
        database.execute("INSERT INTO stream_metrics VALUES ('s', 'out', 1, 2, 0.5, '2026-03-01T12:00:00.000Z')")
        database.execute(
            "INSERT INTO studio_syncs (studio, entry, component, direction, way, revision, status, reason, created_at,"
            " updated_at) VALUES ('s', 'e', 'c', 'broadcast', 'pull', 1, 'executed', '', 'now', 'now')"
        )
    lines = sqlite3(path, f"SELECT {COLUMNS[table]} FROM {table};")
    assert lines
    assert {len(line.split("|")) for line in lines} == {len(COLUMNS[table].split(", "))}


async def fill(store: SqliteLanes) -> None:
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


async def test_inner_states_are_shown_in_the_words_of_the_names(database: Database, store: SqliteLanes) -> None:
    await fill(store)
    events = database.read("SELECT session_id, source_id, target_id, payload, status FROM propagation_events")
    assert [event[-1] for event in events[:5]] == ["pending", "pending", "retry", "failed", "cancelled"]
    assert events[0] == ("standing", "service/default/svc-1", "system/one", "sealed:log:1.0", "pending")
    assert ("half", "service/default/svc-20", "system/two", "sealed:log:20.0", "failed") in events
    assert sorted((event[0], *event[2:]) for event in events if event[-1] == "executed") == [
        ("done", "system/gone", "sealed:log:10", "executed"),
        ("done", "system/one", "sealed:log:10", "executed"),
        ("half", "system/one", "sealed:log:10", "executed"),
    ]
    assert len(events) == 6 + 3


async def test_every_payload_is_a_reference_to_the_sealed_log(database: Database, store: SqliteLanes) -> None:
    await fill(store)
    for table in ("propagation_events", "webhook_queue"):
        payloads = [payload for (payload,) in database.read(f"SELECT payload FROM {table}")]
        assert payloads
        assert all(payload.startswith("sealed:log:") for payload in payloads)


async def test_progress_at_each_target_of_a_session(database: Database, store: SqliteLanes) -> None:
    await fill(store)
    found = {
        (session_id, target): (status, protocol)
        for session_id, target, status, protocol in database.read(
            "SELECT session_id, target_id, status, protocol FROM propagation_targets"
        )
    }
    assert found == {
        ("standing", "system/one"): ("failed", "webhook"),
        ("done", "system/one"): ("executed", "webhook"),
        ("done", "system/gone"): ("executed", None),
        ("half", "system/one"): ("executed", "webhook"),
        ("half", "system/two"): ("failed", "webhook"),
        ("half", "system/three"): ("pending", "webhook"),
        ("half", "system/gone"): ("cancelled", None),
    }


async def test_a_standing_session_goes_through_the_words_too(database: Database, store: SqliteLanes) -> None:
    async def status(*rows: Delivery, **changes: Any) -> str:
        await store.apply(Settlements(lanes=(lane(**changes),), upserts=rows))
        ((word,),) = database.read("SELECT status FROM propagation_targets")
        return str(word)

    await store.apply(Settlements(sessions=(session("standing", "one"),)))
    assert database.read("SELECT status FROM propagation_targets") == [("pending",)]
    assert await status(backfill=Backfill(route_uid="standing", upto=10, at=3)) == "pending"
    assert await status() == "executed"
    assert await status(row(1), row(2, "cancelled")) == "pending"
    assert await status(row(1, "waiting")) == "retry"
    assert await status(row(1, "dead")) == "failed"
    assert database.read("SELECT count(*) FROM propagation_events WHERE status = 'executed'") == [(0,)]


async def test_the_webhook_queue_holds_webhooks_only_and_counts_retries(database: Database, store: SqliteLanes) -> None:
    await fill(store)
    await store.apply(Settlements(lanes=(lane("s", transport="stream"),), upserts=(row(1, on="s"),)))
    queue = database.read("SELECT webhook_id, retry_count, max_retries, status FROM webhook_queue ORDER BY 1")
    assert ("dlv_one_1", 0, 13, "pending") in queue
    assert ("dlv_one_3", 2, 13, "retry") in queue
    assert len(queue) == 6
    for retry, wanted in ((RetrySettings(slow_phase=False), 5), (RetrySettings(enabled=False), 0)):
        await SqliteLanes(database, retry=retry).claim("boot-1", NOW, NOW)
        assert database.read("SELECT DISTINCT max_retries FROM webhook_queue") == [(wanted,)]


async def test_the_metrics_logs_and_executions_under_their_names(database: Database, store: SqliteLanes) -> None:
    await fill(store)
    assert dict(database.read("SELECT metric, value FROM propagation_metrics")) == {
        "propagation.executed": 5,
        "webhook.delivered": 4,
        "webhook.retry": 3,
        "webhook.failed": 2,
        "stream.messages": 1,
        "health.queue_depth": 3,
        "health.webhooks_pending": 2,
    }
    logs = database.read("SELECT session_id, target_id, level, message FROM propagation_logs")
    assert logs == [
        ("standing", "system/one", "warning", "failed: busy"),
        (None, "system/one", "warning", "failed: busy"),
    ]
    log = database.read("SELECT component_id, action, status FROM execution_log")
    assert log[:2] == [("system/one", "deliver", "failed")] * 2
    assert sorted(log[2:]) == [
        ("system/gone", "deliver", "executed"),
        ("system/one", "deliver", "executed"),
        ("system/one", "deliver", "executed"),
    ]


# --- the two queries, while a writer is going -------------------------------------------------------------------------


def sqlite3(path: Path, sql: str) -> list[str]:
    done = subprocess.run(["sqlite3", str(path)], input=sql, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@needs_sqlite3
async def test_depth_equals_both_queries_while_a_writer_is_going(path: Path, store: SqliteLanes) -> None:
    """In each snapshot that the system's sqlite3 takes the queries equal the counts; at rest they equal `depth`."""
    await fill(store)
    gauges = "SELECT value FROM propagation_metrics WHERE metric = 'health.{}';"
    asked = [QUEUE_QUERY, gauges.format("queue_depth"), WEBHOOK_QUERY, gauges.format("webhooks_pending")]
    script = "\n".join(["BEGIN;", *asked, "COMMIT;"])
    enough = asyncio.Event()
    seen: set[str] = set()
    written = 0

    async def write() -> None:
        nonlocal written
        while not enough.is_set():
            written += 1
            await store.apply(settlements(100 * written))

    async def read() -> None:
        while len(seen) < 5:
            queue, queue_gauge, webhooks, webhooks_gauge = await asyncio.to_thread(sqlite3, path, script)
            assert (queue, webhooks) == (queue_gauge, webhooks_gauge)
            seen.add(queue)
        enough.set()

    async with asyncio.timeout(60):
        await asyncio.gather(write(), read())
    depth = await store.depth()
    assert sqlite3(path, QUEUE_QUERY + WEBHOOK_QUERY) == [str(depth.queue_depth), str(depth.webhooks_pending)]
    assert depth.queue_depth > depth.webhooks_pending > written


def settlements(start: int) -> Settlements:
    """New rows in every state, changes to those of the last time, and some of those taken away."""
    states = ("pending", "pending", "sending", "waiting", "dead", "cancelled")
    fresh = [row(start + n, states[n % 6]) for n in range(30)]
    changed = [row(start - 100 + n, states[-n % 6]) for n in range(20) if start > 100]
    elsewhere = row(start, "waiting", on="two")
    return Settlements(
        lanes=(lane(), lane("two", transport="stream")),
        upserts=(*fresh, *changed, elsewhere),
        removed=tuple(("lane-one", f"dlv_one_{start - 100 + n}") for n in range(5)),
    )


# --- what the queries cost --------------------------------------------------------------------------------------------

EVERYWHERE = dict.fromkeys(("lane", "session", "states", "since"))
LOOKUPS: dict[str, Any] = {
    "due_pending": {"lane": "lane-one", "limit": 50},
    "due_waiting_reach": {"lane": "lane-one", "now": "2026-03-01T12:00:00.000Z", "reach": 1000},
    "due_waiting_many": {"lane": "lane-one", "now": "2026-03-01T12:00:00.000Z", "limit": 50},
    "next_due": {},
    "depth": {},
    "blocked_keys": {"lane": "lane-one", "keys": '[["service", "default", "svc-7"]]'},
    "deliveries_by_lane": {"lane": "lane-one", "states": None, "since": None, "limit": 50},
    "deliveries_dead": {"lane": None, "since": None, "limit": 50},
    "due_waiting_few": {"lane": "lane-one", "now": "2026-03-01T12:00:00.000Z", "limit": 50},
    "deliveries_by_key": {"name": "svc-7", "kind": "service", "namespace": "default", "limit": 50} | EVERYWHERE,
    "attempts": ("dlv_one_1",),
    "session": ("standing",),
    "arrivals": ("standing",),
    "put_arrival": ("dlv_one_1", "2026-03-01T12:00:00.000Z", "2026-03-01T12:00:01.000Z", "standing", "system", "one"),
    "remove_delivery": ("lane-one", "dlv_one_1"),
    "recover_sending": {"owner": "boot-2", "now": "2026-03-01T12:00:00.000Z", "limit": 3},
}
SORTED = {"deliveries_by_key", "due_waiting_few", "session", "arrivals"}  # few rows, sorted after they were found


@pytest.mark.parametrize("name", LOOKUPS)
def test_a_lookup_walks_no_table_of_rows_and_sorts_none(database: Database, name: str) -> None:
    sql = load_queries("sqlite/propagation.sql")[name]
    plan = [str(step[-1]) for step in database.read(f"EXPLAIN QUERY PLAN {sql}", LOOKUPS[name])]
    assert plan
    walks = [
        step
        for step in plan
        if re.match(r"SCAN (deliveries|attempts|sessions|session_targets|[dast])\b(?!.*USING)", step)
    ]
    sorts = [step for step in plan if "TEMP B-TREE" in step]
    assert walks == []
    assert not sorts or name in SORTED, plan


def test_the_dead_letters_of_a_record_are_not_walked_to_find_its_live_rows(database: Database) -> None:
    sql = load_queries("sqlite/propagation.sql")["blocked_keys"]
    plan = [str(step[-1]) for step in database.read(f"EXPLAIN QUERY PLAN {sql}", LOOKUPS["blocked_keys"])]
    assert any("(name=? AND kind=? AND namespace=? AND lane_id=? AND live=?)" in step for step in plan), plan


@pytest.mark.parametrize("shape", ["pending", "one record", "all past their time", "nearly none past their time"])
async def test_finding_what_is_due_costs_the_same_among_few_and_many_rows(tmp_path: Path, shape: str) -> None:
    """Counted in steps of SQLite's machine, so the answer is the same on every computer."""
    few, many = [await steps_of_due(tmp_path / f"{count}.db", shape, count) for count in (2000, 8000)]
    assert many <= few * 1.5 + 200, (few, many)


async def steps_of_due(path: Path, shape: str, count: int) -> int:
    past, future = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
    rows: dict[str, Callable[[int], Delivery]] = {
        "pending": row,
        "one record": lambda n: row(n, name="svc"),
        "all past their time": lambda n: row(n, "waiting", next_at=past + timedelta(seconds=n % 900)),
        "nearly none past their time": lambda n: row(n, "waiting", next_at=past if n > count - 20 else future),
    }
    database = Database.open(path, "propagation")
    try:
        store = SqliteLanes(database)
        await store.apply(Settlements(lanes=(lane(),), upserts=tuple(rows[shape](n) for n in range(count))))
        assert len(await store.due("lane-one", NOW, 10)) == (1 if shape == "one record" else 10)
        steps = 0

        def step() -> bool:
            nonlocal steps
            steps += 1
            return False

        assert database._reader is not None
        database._reader.set_progress_handler(step, 1)
        await store.due("lane-one", NOW, 10)
        await store.next_due()
        await store.depth()
    finally:
        database.close()
    return steps


# --- rules that hold whoever writes -----------------------------------------------------------------------------------


async def test_attempts_cannot_be_changed_nor_a_delivery_moved(database: Database, store: SqliteLanes) -> None:
    await fill(store)
    for sql in (
        "UPDATE attempts SET reason = 'never happened'",
        "UPDATE deliveries SET revision = 1",
        "UPDATE deliveries SET name = 'other'",
        "INSERT INTO attempts VALUES (NULL, 'd', 'no-lane', 0, '', '', NULL, 0, '')",
        "UPDATE deliveries SET state = 'lost'",
        "UPDATE deliveries SET state = 'waiting', next_at = NULL",
        "UPDATE lanes SET breaker = 'broken'",
        "UPDATE sessions SET revision = 'ten'",
    ):
        with pytest.raises(apsw.ConstraintError):
            database.writer.execute(sql)


async def test_counts_stay_true_when_rows_are_edited_by_hand(database: Database, store: SqliteLanes) -> None:
    await fill(store)
    database.writer.execute("DELETE FROM deliveries WHERE state IN ('sending', 'dead')")
    database.writer.execute("UPDATE deliveries SET state = 'pending' WHERE state = 'cancelled'")
    one, two, _ = await store.lanes()
    assert (one.rows, one.dead, two.rows, two.dead) == (3, 0, 0, 0)
    depth = await store.depth()
    assert (depth.queue_depth, depth.webhooks_pending, depth.waiting, depth.dead) == (3, 2, 1, 0)


@needs_sqlite3
def test_the_schema_needs_nothing_that_the_systems_sqlite3_lacks(path: Path) -> None:
    for step in load_migrations("propagation", "sqlite"):
        sqlite3(path, step.sql)
    assert sqlite3(
        path, "SELECT * FROM propagation_events; SELECT * FROM propagation_targets; PRAGMA quick_check;"
    ) == ["ok"]


# --- migrations -------------------------------------------------------------------------------------------------------


def schema(path: Path) -> tuple[int, list[tuple[Any, ...]]]:
    """Its version, and everything it holds."""
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        found = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return int(connection.pragma("user_version")), found
    finally:
        connection.close()


def test_an_empty_file_is_new_and_opening_again_changes_nothing(path: Path) -> None:
    path.touch()
    Database.open(path, "propagation").close()
    first = schema(path)
    Database.open(path, "propagation").close()
    assert schema(path) == first
    assert first[0] == len(load_migrations("propagation", "sqlite"))


def test_a_newer_file_is_refused(path: Path) -> None:
    Database.open(path, "propagation").close()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(NewerStore, match="99"):
        Database.open(path, "propagation")


CHILD = """
import os, signal, sys
from pathlib import Path
from universal_registry.storage import database
from universal_registry.storage.database import Database

path, when, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
steps = 0

def die(*ignored):
    os.kill(os.getpid(), signal.SIGKILL)

def step():
    global steps
    steps += 1
    if when == "step" and steps == number:
        die()
    return False

def watch(connection):
    connection.set_progress_handler(step, 1)
    if when == "commit":
        connection.set_commit_hook(die)
    if when == "committed":
        connection.set_wal_hook(die)

def connect(*args, **how):  # the hooks after our own settings, one of which would take the place of one of them
    connection = connect_plainly(*args, **how)
    watch(connection)
    return connection

connect_plainly, database._connect = database._connect, connect
Database.open(Path(path), "propagation").close()
print(steps)
"""


def migrate_and_die(path: Path, when: str, number: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(path), when, str(number)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )


def stages(path: Path) -> list[tuple[int, list[tuple[Any, ...]]]]:
    """The schema before the first step and after each."""
    connection = apsw.Connection(str(path))
    found = [schema(path)]
    for step in load_migrations("propagation", "sqlite"):
        connection.execute(step.sql)
        connection.execute(f"PRAGMA user_version={step.number}")
        found.append(schema(path))
    connection.close()
    return found


def test_migrations_killed_at_any_point_leave_the_schema_before_a_step_or_after_it(tmp_path: Path) -> None:
    whole = migrate_and_die(tmp_path / "whole.db", "never")
    assert (whole.returncode, whole.stderr) == (0, "")
    total = int(whole.stdout)
    wanted, whole_steps = schema(tmp_path / "whole.db"), stages(tmp_path / "stages.db")
    assert whole_steps[-1] == wanted
    points = [("step", 1 + total * part // 12) for part in range(12)]
    found = []
    for index, (when, number) in enumerate([*points, ("commit", 0), ("committed", 0)]):
        path = tmp_path / f"{index}.db"
        killed = migrate_and_die(path, when, number)
        assert killed.returncode == -9, (when, number, killed)
        found.append(schema(path))
        assert found[-1] in whole_steps, (when, number)
        Database.open(path, "propagation").close()
        assert schema(path) == wanted, (when, number)
    assert found[0] == found[-2] == (0, []), "killed before the commit: the old one"
    assert found[-1] == whole_steps[1], "killed after it: the new one"
