"""What every registry store does, whatever the engine below: add yours to ENGINES."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.kernel.errors import CursorMismatch, Invalid, NotFound, PreconditionFailed, RegistryError
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.chain import GENESIS, verify
from universal_registry.log.change import Op
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.operation import Effect
from universal_registry.registry.record import decode_record
from universal_registry.registry.selector import exact_name, parse_selector
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import GroupWriter

WORLD = SystemWorld()
CATALOGUE = load_catalogue()
SEALER = Sealer(Keyring.of(new_key(WORLD)), bytes(32))
OPERATOR = Actor("uid:1000", admin=True)
HOSTILE_NAMES = (
    "g++",
    "@scope/pkg",
    "..",
    ".",
    "-",
    "-rf",
    "[",
    "a*b?",
    "x; touch pwned",
    "$(id)",
    "`id`",
    'it\'s "quoted"',
    "10.0.0.0/8",
    "HTTP_PROXY",
    "http_proxy",
    "%2e%2e%2f",
    "\u202eevil",
    "\U0001f600" * 63,
)

Opener = Callable[[Path], AbstractAsyncContextManager[RegistryService]]


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[RegistryService]:
    store = SqliteRegistry.open(folder / "registry.db", CATALOGUE, WORLD)
    writer = GroupWriter(store, CATALOGUE)
    try:
        yield RegistryService(catalogue=CATALOGUE, sealer=SEALER, writer=writer, records=store, log=store, world=WORLD)
    finally:
        await writer.close()
        store.database.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[RegistryService]:
    store = await PostgresRegistry.open(pgserver.database_of(folder), CATALOGUE, WORLD)
    writer = GroupWriter(store, CATALOGUE)
    try:
        yield RegistryService(catalogue=CATALOGUE, sealer=SEALER, writer=writer, records=store, log=store, world=WORLD)
    finally:
        await writer.close()
        await store.database.close()


ENGINES: dict[str, Opener] = {"sqlite": sqlite, "postgres": postgres}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Opener:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    return ENGINES[request.param]


@pytest.fixture
async def service(engine: Opener, tmp_path: Path) -> AsyncIterator[RegistryService]:
    async with engine(tmp_path) as opened:
        yield opened


def alias(name: str, command: str = "git status", **more: Any) -> dict[str, Any]:
    return {"kind": "alias", "name": name, "spec": {"command": command}, **more}


def all_bytes(folder: Path) -> bytes:
    """All that the store of this folder has written: its files, or what a backup of its database holds."""
    written = b"".join(file.read_bytes() for file in folder.iterdir())
    for server in pgserver.RUNNING:
        written += server.dump(pgserver.database_of(folder).name)
    assert b"created_at" in written
    return written


async def names(service: RegistryService, selector: str, **more: Any) -> list[str]:
    page = await service.list(parse_selector(selector, CATALOGUE), limit=1000, **more)
    return [record.name for record in page.records]


async def whole_log(service: RegistryService) -> list[Any]:
    lines: list[Any] = []
    cursor = None
    while True:
        more, cursor = await service.changes(cursor, 7)
        if not more:
            return lines
        lines += more


# --- one record -----------------------------------------------------------------------------------------------------


async def test_put_then_get(service: RegistryService) -> None:
    written = await service.put(alias("gs", labels={"tier": "dev"}), actor=OPERATOR, message="first")
    record = await service.get(Key("alias", "default", "gs"))
    assert written.results[0].effect is Effect.CREATED
    assert (record.revision, record.generation, record.created_by) == (1, 1, "uid:1000")
    assert record.spec == {"command": "git status"}
    assert record.labels == {"tier": "dev"}
    [line] = await whole_log(service)
    assert (line.op, line.actor, line.message, line.revision) == (Op.PUT, "uid:1000", "first", 1)
    assert decode_record(line.body) == record


async def test_the_seeds_entity_keeps_what_is_not_declared(service: RegistryService) -> None:
    document = {"name": "myapp", "classification": "AppService", "spec": {"type": "service", "version": "1.0"}}
    written = await service.put(document, actor=OPERATOR)
    assert "spec.type" in written.warnings[0]
    record = await service.get(Key("service", "default", "myapp"))
    assert record.spec == {"type": "service", "version": "1.0"}
    with pytest.raises(Invalid, match="type"):
        await service.put({**document, "name": "other"}, actor=OPERATOR, strict=True)


async def test_a_write_that_changes_nothing_makes_no_revision(service: RegistryService) -> None:
    await service.put(alias("gs"), actor=OPERATOR)
    again = await service.put(alias("gs"), actor=Actor("somebody else"))
    assert again.results[0].effect is Effect.UNCHANGED
    assert again.revision == 1
    assert len(await whole_log(service)) == 1


async def test_a_state_that_stays_says_that_nothing_was_written(service: RegistryService) -> None:
    states = [service.records.state]
    for command in ("ls", "ls -l"):
        await service.put({"kind": "alias", "name": "gs", "spec": {"command": command}}, actor=OPERATOR)
        states.append(service.records.state)
        await service.get(Key("alias", "default", "gs"))
        assert service.records.state == states[-1]
    await service.delete(Key("alias", "default", "gs"), actor=OPERATOR)
    states.append(service.records.state)
    told = [state for state in states if state is not None]
    assert len(set(told)) == len(told)


async def test_put_replaces_and_merge_merges(service: RegistryService) -> None:
    await service.put({"kind": "service", "name": "pay", "spec": {"port": 1, "version": "2"}}, actor=OPERATOR)
    await service.merge({"kind": "service", "name": "pay", "spec": {"port": 2}}, actor=OPERATOR)
    assert (await service.get(Key("service", "default", "pay"))).spec == {"port": 2, "version": "2"}
    await service.merge({"kind": "service", "name": "pay", "spec": {"version": None}}, actor=OPERATOR)
    assert (await service.get(Key("service", "default", "pay"))).spec == {"port": 2}
    await service.put({"kind": "service", "name": "pay", "spec": {"version": "3"}}, actor=OPERATOR)
    record = await service.get(Key("service", "default", "pay"))
    assert record.spec == {"version": "3"}
    assert record.generation == 4
    [*_, last] = await whole_log(service)
    assert last.changed_fields == ("spec.port", "spec.version")


async def test_merge_is_validated_as_it_would_be_stored(service: RegistryService) -> None:
    with pytest.raises(Invalid, match="command"):
        await service.merge({"kind": "alias", "name": "gs", "spec": {}}, actor=OPERATOR)
    with pytest.raises(Invalid, match="port"):
        await service.merge({"kind": "service", "name": "pay", "spec": {"port": "high"}}, actor=OPERATOR)
    assert await whole_log(service) == []


async def test_delete_leaves_its_last_document_in_the_log(service: RegistryService) -> None:
    await service.put(alias("gs", labels={"tier": "dev"}), actor=OPERATOR)
    await service.delete(Key("alias", "default", "gs"), actor=OPERATOR)
    with pytest.raises(NotFound):
        await service.get(Key("alias", "default", "gs"))
    [_, line] = await whole_log(service)
    assert line.op is Op.DELETE
    assert decode_record(line.body).labels == {"tier": "dev"}
    with pytest.raises(NotFound):
        await service.delete(Key("alias", "default", "gs"), actor=OPERATOR)
    reborn = await service.put(alias("gs"), actor=OPERATOR)
    assert reborn.results[0].record is not None
    assert reborn.results[0].record.generation == 1


async def test_a_wrong_revision_changes_nothing(service: RegistryService) -> None:
    await service.put(alias("gs"), actor=OPERATOR)
    with pytest.raises(PreconditionFailed) as caught:
        await service.put(alias("gs", "git diff"), actor=OPERATOR, if_revision=7)
    assert caught.value.data["revision"] == 1
    with pytest.raises(PreconditionFailed) as stale_create:
        await service.put(alias("gs", "git diff"), actor=OPERATOR, if_revision=0)
    assert "is there already" in str(stale_create.value)
    await service.put(alias("new"), actor=OPERATOR, if_revision=0)
    await service.put(alias("gs", "git diff", meta={"revision": 1}), actor=OPERATOR)
    assert (await service.get(Key("alias", "default", "gs"))).spec["command"] == "git diff"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_names_are_data(service: RegistryService, name: str) -> None:
    await service.put(alias("bystander"), actor=OPERATOR)
    await service.put(alias(name, labels={name[:60]: name}), actor=OPERATOR)
    assert (await service.get(Key("alias", "default", name))).name == name
    assert [record.name for record in await service.find(name)] == [name]
    page = await service.list(parse_selector({"names": [exact_name(name)]}, CATALOGUE), limit=5)
    assert [record.name for record in page.records] == [name]
    await service.delete(Key("alias", "default", name), actor=OPERATOR)
    assert await names(service, "kind=alias") == ["bystander"]


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\0b", "x" * 254, "\ud800", "\x1b[31m", 7, None])
async def test_bad_names_are_refused(service: RegistryService, name: Any) -> None:
    with pytest.raises(Invalid):
        await service.put(alias(name), actor=OPERATOR)


async def test_mistakes_are_met_with_a_guess(service: RegistryService) -> None:
    await service.put(alias("status"), actor=OPERATOR)
    with pytest.raises(Invalid, match="did you mean 'alias'"):
        await service.put({**alias("gs"), "kind": "alais"}, actor=OPERATOR)
    with pytest.raises(Invalid, match="did you mean 'AppService'"):
        await service.put({"name": "x", "classification": "AppServise"}, actor=OPERATOR)
    with pytest.raises(NotFound, match="did you mean 'status'"):
        await service.get(Key("alias", "default", "statsu"))
    with pytest.raises(Invalid, match="did you mean 'labels'"):
        await service.put({**alias("gs"), "lables": {}}, actor=OPERATOR)


# --- secrets --------------------------------------------------------------------------------------------------------


async def test_a_secret_is_sealed_everywhere_and_kept(service: RegistryService, tmp_path: Path) -> None:
    await service.put({"kind": "secret", "name": "db", "spec": {"value": "hunter2-canary"}}, actor=OPERATOR)
    record = await service.get(Key("secret", "default", "db"))
    assert service.shown(record).spec == {"value": {"$secret": "kept"}}
    assert service.reveal(record) == {"value": "hunter2-canary"}
    kept = {"kind": "secret", "name": "db", "title": "new", "spec": {"value": {"$secret": "kept"}}}
    await service.put(kept, actor=OPERATOR)
    assert service.reveal(await service.get(Key("secret", "default", "db"))) == {"value": "hunter2-canary"}
    same = await service.put({**kept, "spec": {"value": "hunter2-canary"}}, actor=OPERATOR)
    assert same.results[0].effect is Effect.UNCHANGED
    assert b"hunter2" not in all_bytes(tmp_path)


async def test_a_sealed_value_cannot_be_moved_or_planted(service: RegistryService) -> None:
    await service.put({"kind": "secret", "name": "db", "spec": {"value": "hunter2"}}, actor=OPERATOR)
    sealed = (await service.get(Key("secret", "default", "db"))).spec["value"]
    with pytest.raises(Invalid, match="does not open here"):
        await service.put({"kind": "secret", "name": "other", "spec": {"value": sealed}}, actor=OPERATOR)
    with pytest.raises(Invalid, match="not declared as a secret"):
        await service.put({"kind": "service", "name": "x", "spec": {"note": sealed}}, actor=OPERATOR)
    kept = {"kind": "secret", "name": "new", "spec": {"value": {"$secret": "kept"}}}
    with pytest.raises(Invalid, match="there is none"):
        await service.put(kept, actor=OPERATOR)


# --- many -----------------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_revision_or_nothing(service: RegistryService) -> None:
    await service.put(alias("old"), actor=OPERATOR)
    written = await service.batch(
        [
            {"op": "put", **alias("a")},
            {"op": "merge", **alias("old", "new command")},
        ],
        actor=OPERATOR,
    )
    assert written.revision == 2
    assert [(line.revision, line.seq) for line in await whole_log(service)] == [(1, 0), (2, 0), (2, 1)]
    with pytest.raises(NotFound):
        await service.batch(
            [{"op": "put", **alias("b")}, {"op": "delete", "kind": "alias", "name": "no"}], actor=OPERATOR
        )
    with pytest.raises(Invalid, match="operation 1"):
        await service.batch([{"op": "put", **alias("b")}, {"op": "put", "kind": "alias", "name": "c"}], actor=OPERATOR)
    with pytest.raises(Invalid, match="twice"):
        await service.batch(
            [{"op": "put", **alias("b")}, {"op": "delete", "kind": "alias", "name": "b"}], actor=OPERATOR
        )
    assert await names(service, "kind=alias") == ["a", "old"]


async def test_concurrent_writers_each_get_a_revision_of_their_own(service: RegistryService) -> None:
    async def write(writer: int) -> list[int]:
        return [(await service.put(alias(f"w{writer}", str(turn)), actor=OPERATOR)).revision for turn in range(25)]

    revisions = [revision for made in await asyncio.gather(*map(write, range(16))) for revision in made]
    assert sorted(revisions) == list(range(1, 401))
    lines = await whole_log(service)
    assert verify(GENESIS, lines, 1) == (await service.log.head()).hash


async def test_a_listener_that_fails_costs_nobody_a_commit(service: RegistryService) -> None:
    reported: list[BaseException] = []
    called: list[str] = []

    def fails() -> None:
        raise ValueError("a listener's bug")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    service.on_commit(fails)
    service.on_commit(lambda: called.append("the next one"))
    for turn in range(3):
        await asyncio.wait_for(service.put(alias("a", str(turn)), actor=OPERATOR), timeout=20)
    await asyncio.wait_for(service.put(alias("b"), actor=OPERATOR), timeout=20)
    assert await names(service, "kind=alias") == ["a", "b"]
    assert {str(each) for each in reported} == {"a listener's bug"}
    assert len(called) == len(reported) >= 3


async def test_one_refusal_does_not_touch_its_neighbours(service: RegistryService) -> None:
    answers = await asyncio.gather(
        *(service.put(alias(f"a{each}"), actor=OPERATOR, if_revision=each % 2) for each in range(20)),
        return_exceptions=True,
    )
    refused = [isinstance(answer, PreconditionFailed) for answer in answers]
    assert refused == [bool(each % 2) for each in range(20)]
    assert len(await names(service, "kind=alias")) == 10
    assert [line.revision for line in await whole_log(service)] == list(range(1, 11))


async def test_the_same_key_in_one_group_sees_what_came_before(service: RegistryService) -> None:
    await asyncio.gather(*(service.merge(alias("x", str(each)), actor=OPERATOR) for each in range(50)))
    record = await service.get(Key("alias", "default", "x"))
    assert (record.generation, record.revision, record.spec) == (50, 50, {"command": "49"})


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_selectors(service: RegistryService) -> None:
    for name, port, tier in (("pay", 8443, "backend"), ("web", 443, "frontend"), ("cron", 0, "")):
        labels = {"tier": tier} if tier else {}
        await service.put({"kind": "service", "name": name, "spec": {"port": port}, "labels": labels}, actor=OPERATOR)
    await service.put({"kind": "service", "name": "pay", "namespace": "prod", "spec": {"port": 1}}, actor=OPERATOR)
    await service.put({"kind": "service", "name": "hidden", "namespace": "system"}, actor=OPERATOR)
    assert await names(service, "kind=services") == ["cron", "pay", "web", "pay"]
    assert await names(service, "kind=service,namespace=system") == ["hidden"]
    assert await names(service, "kind=service,namespace=default,name=*a*") == ["pay"]
    assert await names(service, "spec.port=443") == ["web"]
    assert await names(service, "labels.tier=backend") == ["pay"]
    assert await names(service, "labels.tier,labels.tier!=backend") == ["web"]
    assert await names(service, "!labels.tier,namespace=default") == ["cron"]
    assert await names(service, "kind=alias") == []


async def test_sql_and_the_selector_agree(service: RegistryService) -> None:
    for index in range(30):
        document = {
            "kind": "service",
            "name": f"s{index}" if index % 3 else f"[{index}]*",
            "namespace": ("default", "prod", "system")[index % 3],
            "labels": {"n": str(index % 4)} if index % 5 else {},
            "spec": {"port": 8000 + index % 2, "nested": {"deep": index % 2 == 0}},
        }
        await service.put(document, actor=OPERATOR)
    everything = await service.list(
        parse_selector("namespace=default,namespace=prod,namespace=system", CATALOGUE), limit=100
    )
    for text in (
        "name=s*",
        "name=[*",
        "name=\\[3\\]\\*",
        "name=?1",
        "labels.n=1,labels.n=2",
        "!labels.n",
        "labels.n!=3",
        "spec.port=8001",
        "spec.nested.deep=true",
        "spec.port=8001,spec.port=8000,name=s1*",
        "namespace=system",
        "class=DaemonService",
    ):
        selector = parse_selector(text, CATALOGUE)
        page = await service.list(selector, limit=100)
        expected = [record.uid for record in everything.records if selector.matches(record)]
        assert [record.uid for record in page.records] == expected, text


async def test_classifications_include_their_children(service: RegistryService) -> None:
    parent = next(each for kind in CATALOGUE.kinds.values() for each in kind.classifications if each.parent)
    document = dict(CATALOGUE.kinds[parent.kind].example)
    await service.put({**document, "classification": parent.name, "namespace": "default"}, actor=OPERATOR)
    assert parent.parent is not None
    assert await names(service, f"class={parent.parent}") == [document["name"]]


async def test_pages_join_up_over_kinds(service: RegistryService) -> None:
    for index in range(23):
        await service.put(alias(f"a{index:02}"), actor=OPERATOR)
        await service.put({"kind": "service", "name": f"s{index:02}"}, actor=OPERATOR)
    selector, page, seen = parse_selector("", CATALOGUE), None, []
    while True:
        answer = await service.list(selector, limit=7, page=page)
        seen += [record.name for record in answer.records]
        page = answer.next
        if page is None:
            break
    assert seen == [f"a{index:02}" for index in range(23)] + [f"s{index:02}" for index in range(23)]


async def test_find_knows_kinds_and_slashes(service: RegistryService) -> None:
    await service.put(alias("pay"), actor=OPERATOR)
    await service.put({"kind": "service", "name": "pay"}, actor=OPERATOR)
    await service.put({"kind": "package", "name": "@scope/pkg", "spec": {"version": "1"}}, actor=OPERATOR)
    await service.put({"kind": "service", "name": "alias/pay"}, actor=OPERATOR)
    assert [record.kind for record in await service.find("pay")] == ["alias", "service"]
    assert [record.kind for record in await service.find("services/pay")] == ["service"]
    assert [record.kind for record in await service.find("@scope/pkg")] == ["package"]
    assert [record.name for record in await service.find("alias/pay")] == ["alias/pay", "pay"]
    with pytest.raises(RegistryError, match="may mean 2 records"):
        await service.find_one("pay")


# --- the log --------------------------------------------------------------------------------------------------------


async def test_cursors_are_checked_against_the_line(service: RegistryService) -> None:
    await service.put(alias("a"), actor=OPERATOR)
    written = await service.put(alias("b"), actor=OPERATOR)
    cursor = parse_cursor(written.cursor)
    assert (await service.changes(cursor, 10))[0] == []
    await service.put(alias("c"), actor=OPERATOR)
    assert [line.name for line in (await service.changes(cursor, 10))[0]] == ["c"]
    head = await service.log.head()
    for wrong in (
        Cursor(head.incarnation, 2, "00000000"),
        Cursor(head.incarnation, 99, cursor.hash8),
        Cursor("0" * 12, 2, cursor.hash8),
    ):
        with pytest.raises(CursorMismatch) as caught:
            await service.changes(wrong, 10)
        assert caught.value.data["cursor"] == str(head.cursor)


async def test_the_places_of_the_newest_lines_are_told_up_to_a_number(service: RegistryService) -> None:
    await service.put(alias("first"), actor=OPERATOR)
    await service.batch([{"op": "put", **alias(f"b{index}")} for index in range(3)], actor=OPERATOR)
    await service.put(alias("last"), actor=OPERATOR)
    whole = (1 << 20) - 1
    assert await service.log.newest_places(0, whole, 10) == [(3, 0), (2, 2), (2, 1), (2, 0), (1, 0)]
    assert await service.log.newest_places(0, whole, 2) == [(3, 0), (2, 2)]
    assert await service.log.newest_places(2, 1, 10) == [(3, 0), (2, 2)]
    assert await service.log.newest_places(2, whole, 10) == [(3, 0)]
    assert await service.log.newest_places(3, 0, 10) == []


async def test_reads_of_the_log_never_split_a_revision(service: RegistryService) -> None:
    await service.put(alias("first"), actor=OPERATOR)
    await service.batch([{"op": "put", **alias(f"b{index}")} for index in range(20)], actor=OPERATOR)
    await service.put(alias("last"), actor=OPERATOR)
    lines, cursor = await service.changes(None, 5)
    assert [line.revision for line in lines] == [1]
    lines, cursor = await service.changes(cursor, 5)
    assert [(line.revision, line.seq) for line in lines] == [(2, seq) for seq in range(20)]
    lines, _ = await service.changes(cursor, 5)
    assert [line.name for line in lines] == ["last"]


async def test_an_event_is_a_line_and_its_payload_is_sealed(service: RegistryService, tmp_path: Path) -> None:
    key = Key("service", "default", "pay")
    await service.emit(key, {"card": "canary-4242"}, audience=["system/a"], session="s1", actor=OPERATOR)
    [line] = await whole_log(service)
    assert line.op is Op.EVENT
    assert line.key == key
    event = service.open_event(line)
    assert (event.session, event.audience, event.payload) == ("s1", ("system/a",), {"card": "canary-4242"})
    assert b"canary-4242" not in all_bytes(tmp_path)


async def test_everything_is_there_when_it_is_opened_again(engine: Opener, tmp_path: Path) -> None:
    async with engine(tmp_path) as service:
        await service.put(alias("gs"), actor=OPERATOR)
        before = await service.log.head()
    async with engine(tmp_path) as service:
        assert await service.log.head() == before
        assert (await service.put(alias("b"), actor=OPERATOR)).revision == 2
        assert verify(GENESIS, await whole_log(service), 1) == (await service.log.head()).hash
