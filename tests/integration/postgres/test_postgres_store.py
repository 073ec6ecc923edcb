"""What is particular to the registry on PostgreSQL; what both engines do is in tests/conformance."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

import pgserver
import pytest

from universal_registry.kernel.errors import (
    Conflict,
    NewerStore,
    ReadOnlyStore,
    RegistryError,
    StorageUnavailable,
    StoreLocked,
)
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import PostgresSettings
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.chain import GENESIS, verify
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor
from universal_registry.storage.ddl import GUARD_MESSAGE, promoted_fields, quoted
from universal_registry.storage.postgres_watch import CommitWatch
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sqlfiles import load_migrations

WORLD = SystemWorld()
CATALOGUE = load_catalogue()
OPERATOR = Actor("uid:1000", admin=True)


def alias(name: str, command: str = "git status", **more: Any) -> dict[str, Any]:
    return {"kind": "alias", "name": name, "spec": {"command": command}, **more}


def _with_secrets(value: Any) -> Any:
    """An example with something in place of `{"$secret": "kept"}`."""
    if value == {"$secret": "kept"}:
        return "hunter2"
    return {key: _with_secrets(each) for key, each in value.items()} if isinstance(value, dict) else value


async def whole_log(log: Any) -> list[Any]:
    lines: list[Any] = []
    while more := await log.changes(lines[-1].revision if lines else 0, 50):
        lines += more
    return lines


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [({"name": "nowhere"}, "nowhere"), ({"user": "nobody-here"}, "nobody-here"), ({"port": 1}, "cannot be reached")],
)
async def test_a_database_that_is_not_there_is_said_in_one_line(
    database: PostgresSettings, change: dict[str, Any], says: str
) -> None:
    fields = {name: getattr(database, name) for name in ("host", "name", "user", "port")} | {"password": "canary-pw"}
    settings = PostgresSettings(**{**fields, **change})
    with pytest.raises(StorageUnavailable) as caught:
        await PostgresRegistry.open(settings, CATALOGUE, WORLD)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "canary-pw" not in f"{caught.value!s} {caught.value!r} {caught.value.data} {settings!r}"


async def test_daemons_that_start_together_make_the_schema_once(postgres: Any) -> None:
    settings = postgres.database("together")
    stores = await asyncio.gather(*(PostgresRegistry.open(settings, CATALOGUE, WORLD) for _ in range(4)))
    try:
        assert len({store.meta("incarnation") for store in stores}) == 1
        made = [str(step.number) for step in load_migrations("registry", "postgres")]
        assert postgres.sql("SELECT number FROM registry.migrations ORDER BY number", "together").split() == made
    finally:
        for store in stores:
            await store.database.close()


async def test_a_newer_schema_is_refused_and_an_older_one_too_when_only_reading(postgres: Any) -> None:
    settings = postgres.database("versions")
    with pytest.raises(Conflict, match="has schema registry 0"):
        await PostgresRegistry.open(settings, CATALOGUE, WORLD, read_only=True)
    await (await PostgresRegistry.open(settings, CATALOGUE, WORLD)).database.close()
    postgres.sql("INSERT INTO registry.migrations (number, name) VALUES (99, 'later')", "versions")
    with pytest.raises(NewerStore, match="99"):
        await PostgresRegistry.open(settings, CATALOGUE, WORLD)


async def test_a_database_that_is_not_of_utf8_is_refused(postgres: Any) -> None:
    postgres.database("latin1")
    postgres.sql("DROP DATABASE latin1")
    postgres.sql("CREATE DATABASE latin1 ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(Conflict, match="LATIN1"):
        await PostgresRegistry.open(postgres.settings("latin1"), CATALOGUE, WORLD)


async def test_a_field_that_a_newer_catalogue_declares_becomes_a_column(postgres: Any, opened: Any) -> None:
    settings = postgres.database("newer_field")
    async with opened(settings) as daemon:
        await daemon.service.put(
            {"kind": "service", "name": "pay", "spec": {"port": 8443, "host": "h5"}}, actor=OPERATOR
        )
    postgres.sql("ALTER TABLE registry.services DROP COLUMN host", "newer_field")
    async with opened(settings):
        assert postgres.sql("SELECT name, port FROM registry.services WHERE host = 'h5'", "newer_field") == "pay|8443\n"
        assert "services_by_host" in postgres.sql("SELECT indexdef FROM pg_indexes", "newer_field")


async def test_the_first_to_record_a_fact_wins(daemon: Any, opened: Any, database: PostgresSettings) -> None:
    async with opened(database) as other:
        await daemon.store.claim_meta({"key_fingerprint": "a"})
        await other.store.claim_meta({"key_fingerprint": "b", "fingerprint_key": "c"})
        assert (other.store.meta("key_fingerprint"), other.store.meta("fingerprint_key")) == ("a", "c")


# --- what is stored -------------------------------------------------------------------------------------------------


async def test_every_kind_comes_back_as_from_sqlite_and_through_its_columns(
    daemon: Any, postgres: Any, database: PostgresSettings, tmp_path: Any
) -> None:
    sqlite = SqliteRegistry.open(tmp_path / "registry.db", CATALOGUE, WORLD)
    for kind in CATALOGUE.kinds.values():
        # A line's order of keys and its text are what both engines must agree upon, byte by byte.
        document = {
            **_with_secrets(kind.example),
            "namespace": "default",
            "labels": {"b": "1", "a": "\u202e", "aa": "%_"},
        }
        await daemon.service.put(document, actor=OPERATOR)
        record = await daemon.store.get(Key(kind.name, "default", kind.example["name"]))
        async with sqlite.batch() as batch:
            [line] = await daemon.store.history(record.key, 1)
            await batch.write([line], {record.key: record})
        twin = await sqlite.get(record.key)
        assert twin == record
        assert json.dumps(record.spec) == json.dumps(twin.spec)
        assert list(record.labels) == list(twin.labels)
        for field in promoted_fields(kind):
            sql = f"SELECT to_jsonb({quoted(field.name)}) FROM registry.{quoted(kind.plural)}"
            text = postgres.sql(sql, database.name).strip()
            assert (json.loads(text) if text else None) == record.spec.get(field.name), (kind.name, field.name)
    sqlite.database.close()
    assert postgres.sql("SELECT count(*), count(DISTINCT kind) FROM registry.records", database.name) == "42|42\n"


async def test_a_long_value_of_an_indexed_field_is_stored_and_found(daemon: Any) -> None:
    long = "h" * 100_000
    for name, host in (("short", "h5"), ("long", long)):
        await daemon.service.put({"kind": "service", "name": name, "spec": {"host": host}}, actor=OPERATOR)
    for host, name in ((long, "long"), ("h5", "short")):
        page = await daemon.service.list(parse_selector({"fields": {"host": host}}, CATALOGUE), limit=5)
        assert [record.name for record in page.records] == [name]


async def test_a_nul_that_postgresql_cannot_store_costs_only_its_caller(daemon: Any) -> None:
    puts = [alias(f"a{each}", "x\0y" if each == 3 else "x") for each in range(8)]
    puts[5]["title"] = "\0"
    answers = await asyncio.gather(*(daemon.service.put(put, actor=OPERATOR) for put in puts), return_exceptions=True)
    refused = [index for index, answer in enumerate(answers) if isinstance(answer, RegistryError)]
    assert refused == [3, 5]
    assert [answer.status < 500 for answer in answers if isinstance(answer, RegistryError)] == [True, True]
    assert verify(GENESIS, await whole_log(daemon.store), 1) == (await daemon.store.head()).hash


@pytest.mark.parametrize("value", ["a\0b", "'", "\\", "%", "_", '"', "nan", "inf", "true", "1e400", "$.x", "٣"])
async def test_any_text_can_be_selected_by(daemon: Any, value: str) -> None:
    await daemon.service.put(alias("a%b_c\\d", labels={"t": "v"}), actor=OPERATOR)
    selectors = (
        {"fields": {"command": value}},
        {"fields": {value: value}},
        {"fields": {f"x.{value}": [1, True, None, value]}},
        {"labels": {"t": value}},
        {"labels": {value: None}},
        {"not_labels": {value: value}},
        {"names": [f"{value}*", value]},
    )
    everything = (await daemon.service.list(parse_selector("", CATALOGUE), limit=5)).records
    for document in selectors:
        selector = parse_selector(document, CATALOGUE)
        page = await daemon.service.list(selector, limit=5)
        assert list(page.records) == [record for record in everything if selector.matches(record)], document


FIELDS: tuple[dict[str, Any], ...] = (
    {"port": [443]}, {"port": [443.0]}, {"port": ["443"]}, {"port": [None]}, {"port": [True]}, {"port": [1 << 70]},
    {"deep.0": ["x"]}, {"deep.list.0": ["x"]}, {"deep.a": ["x"]}, {"deep.n": [1]}, {"deep.n": [True]},
    {"deep.flag": [1]}, {"deep.flag": [True]}, {"deep.flag": ["true"]}, {"deep.none": [None]}, {"deep.f": [0.5]},
)  # fmt: skip


@pytest.mark.parametrize("fields", FIELDS, ids=str)
async def test_fields_are_compared_as_the_selector_itself_does(daemon: Any, fields: dict[str, Any]) -> None:
    specs = (
        {"port": 443},
        {"port": 1},
        {},
        {"deep": {"list": ["x"], "n": 1, "flag": True, "none": None, "f": 0.5}},
        {"deep": {"0": "x", "n": True, "flag": 1}},
        {"deep": ["x"]},
    )
    for index, spec in enumerate(specs):
        await daemon.service.put({"kind": "service", "name": f"s{index}", "spec": spec}, actor=OPERATOR)
    everything = (await daemon.service.list(parse_selector("kind=service", CATALOGUE), limit=9)).records
    selector = parse_selector({"kind": "service", "fields": fields}, CATALOGUE)
    page = await daemon.service.list(selector, limit=9)
    assert [each.name for each in page.records] == [each.name for each in everything if selector.matches(each)]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE registry.aliases SET title = 'x'",
        "DELETE FROM registry.aliases",
        "TRUNCATE registry.aliases",
        "INSERT INTO registry.aliases SELECT * FROM registry.aliases",
        "UPDATE registry.head SET revision = 0",
        "INSERT INTO registry.changes SELECT * FROM registry.changes",
        "DELETE FROM registry.changes",
        "TRUNCATE registry.changes",
    ],
)
async def test_plain_sql_cannot_write_past_the_log(
    daemon: Any, postgres: Any, database: PostgresSettings, sql: str
) -> None:
    await daemon.service.put(alias("gs"), actor=OPERATOR)
    if "SELECT *" in sql and "aliases" in sql:
        columns = "uid, namespace, name, spec, generation, revision, created_revision"
        sql = f"INSERT INTO registry.aliases ({columns}) VALUES ('', '', '', '{{}}', 1, 1, 1)"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        postgres.sql(sql, database.name)
    assert any(words in caught.value.stderr for words in (GUARD_MESSAGE, "append-only", "moves with the log"))
    assert (await daemon.store.head()).revision == 1


# --- several daemons ------------------------------------------------------------------------------------------------


async def test_a_poller_misses_nothing_of_what_two_daemons_write(
    daemon: Any, opened: Any, database: PostgresSettings
) -> None:
    done = asyncio.Event()
    seen: list[Any] = []

    async def poll() -> None:
        while not (done.is_set() and seen and seen[-1].revision == (await daemon.store.head()).revision):
            seen.extend(await daemon.store.changes(seen[-1].revision if seen else 0, 7))

    async def write(service: Any, writer: int) -> list[int]:
        # All writers share some records, in opposite orders.
        names = [f"shared{each}" for each in range(5)][:: 1 if writer % 2 else -1]
        made = []
        for turn in range(20):
            batch = [{"op": "merge", **alias(name, f"{writer} {turn}")} for name in names]
            made.append((await service.batch(batch, actor=OPERATOR)).revision)
            made.append((await service.put(alias(f"w{writer}", str(turn)), actor=OPERATOR)).revision)
        return made

    async with opened(database) as other, asyncio.TaskGroup() as group:
        group.create_task(poll())
        services = (daemon.service, other.service)
        made = await asyncio.gather(*(write(services[each % 2], each) for each in range(8)))
        done.set()
    acknowledged = sorted(revision for each in made for revision in each)
    assert acknowledged == list(range(1, 321))
    assert verify(GENESIS, seen, 1) == (await daemon.store.head()).hash
    assert sorted({line.revision for line in seen}) == acknowledged


async def test_a_commit_of_one_daemon_wakes_the_others_and_not_itself(
    daemon: Any, opened: Any, database: PostgresSettings
) -> None:
    async with opened(database) as other:
        heard = {"mine": asyncio.Event(), "other": asyncio.Event()}
        watches = [CommitWatch(daemon.store, heard["mine"].set), CommitWatch(other.store, heard["other"].set)]
        for watch in watches:
            await watch.look()
        for event in heard.values():
            event.clear()
        await daemon.service.put(alias("gs"), actor=OPERATOR)
        await asyncio.wait_for(heard["other"].wait(), 5)
        assert not heard["mine"].is_set()
        await other.service.put(alias("gs", "other"), actor=OPERATOR)
        await asyncio.wait_for(heard["mine"].wait(), 5)
        for watch in watches:
            await watch.close()


async def test_a_commit_that_no_notification_tells_of_is_seen_by_the_next_look(
    daemon: Any, opened: Any, postgres: Any, database: PostgresSettings
) -> None:
    wakes: list[int] = []
    watch = CommitWatch(daemon.store, lambda: wakes.append(1))
    await watch.look()
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    async with opened(database) as other:
        await other.service.put(alias("gs"), actor=OPERATOR)
    wakes.clear()
    await watch.look()
    assert wakes
    await watch.close()


# --- faults ---------------------------------------------------------------------------------------------------------


async def test_terminated_backends_cost_no_reader_and_no_later_writer_anything(daemon: Any, postgres: Any) -> None:
    for turn in range(5):
        assert (await daemon.service.put(alias("gs", str(turn)), actor=OPERATOR)).revision == turn + 1
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        if turn % 2:
            assert (await daemon.service.get(Key("alias", "default", "gs"))).spec == {"command": str(turn)}


async def test_a_backend_terminated_in_a_transaction_undoes_it(daemon: Any, postgres: Any) -> None:
    await daemon.service.put(alias("gs"), actor=OPERATOR)
    with pytest.raises(StorageUnavailable) as caught:  # noqa: PT012
        async with daemon.store.batch() as batch:
            postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            await batch.heads([Key("alias", "default", "other")])  # gs is known, and need not be asked for
    assert caught.value.retryable
    assert not caught.value.data.get("in_doubt")
    assert (await daemon.service.put(alias("gs", "again"), actor=OPERATOR)).revision == 2


async def test_who_holds_the_head_for_too_long_is_not_waited_for(
    daemon: Any, opened: Any, database: PostgresSettings
) -> None:
    async with opened(database) as other, other.store.batch():
        with pytest.raises(StoreLocked) as caught:  # noqa: PT012
            async with daemon.store.database.transaction() as connection:
                await connection.execute("SET LOCAL lock_timeout = '20ms'")
                await connection.fetchrow("SELECT * FROM head FOR UPDATE")
        assert caught.value.retryable
    assert (await daemon.service.put(alias("gs"), actor=OPERATOR)).revision == 1


async def test_a_transaction_that_stands_still_is_ended_by_the_server(daemon: Any) -> None:
    """As that of a daemon which was stopped while it held the head: the others do not wait for it for ever."""
    with pytest.raises(StorageUnavailable) as caught:  # noqa: PT012
        async with daemon.store.database.transaction() as connection:
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '20ms'")
            await connection.fetchrow("SELECT * FROM head FOR UPDATE")
            await asyncio.to_thread(pgserver.select_nothing, 0.3)
            await connection.execute("SELECT 1")
    assert caught.value.retryable
    assert (await daemon.service.put(alias("gs"), actor=OPERATOR)).revision == 1


async def test_a_database_that_turned_read_only_is_read_and_says_so(
    postgres: Any, opened: Any, database: PostgresSettings
) -> None:
    name = database.name
    async with opened(database) as daemon:
        await daemon.service.put(alias("gs"), actor=OPERATOR)
        postgres.sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        try:
            with pytest.raises(ReadOnlyStore):
                await daemon.service.put(alias("gs", "more"), actor=OPERATOR)
            assert (await daemon.service.get(Key("alias", "default", "gs"))).revision == 1
        finally:
            postgres.sql(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert (await daemon.service.put(alias("gs", "more"), actor=OPERATOR)).revision == 2


async def test_opened_for_reading_it_writes_nothing(daemon: Any, database: PostgresSettings) -> None:
    await daemon.service.put(alias("gs"), actor=OPERATOR)
    store = await PostgresRegistry.open(database, CATALOGUE, WORLD, read_only=True)
    try:
        assert await store.get(Key("alias", "default", "gs")) is not None
        with pytest.raises(ReadOnlyStore):
            async with store.batch():
                pass
    finally:
        await store.database.close()
