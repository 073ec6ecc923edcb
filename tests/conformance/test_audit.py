"""Audit trails and tokens, whatever the engine below: what is written, what tampering shows, and that it shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import apsw
import pgserver
import pytest

from universal_registry.kernel.errors import Conflict, Corrupt, Invalid, NotFound, StorageUnavailable
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.audit import Asked, deed
from universal_registry.observe.audit import PROPAGATION, REGISTRY, Audit, anchors_in
from universal_registry.propagation.lanes.lane import Settlements
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.tokens import Tokens
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.audit_postgres import PgTrail
from universal_registry.storage.audit_sqlite import SqliteTrail
from universal_registry.storage.database import Database
from universal_registry.storage.lanes_postgres import PgLanes
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.tokens_postgres import PgTokens
from universal_registry.storage.tokens_sqlite import SqliteTokens
from universal_registry.storage.writer import GroupWriter

CATALOGUE = load_catalogue()
OPERATOR = Actor("uid:1000", admin=True)


class Tamper(Protocol):
    """Runs SQL on a store behind the product's back; `guarded`: as anybody with `sqlite3` or `psql` would."""

    async def __call__(self, store: str, sql: str, *, guarded: bool = False) -> None: ...


class World(SystemWorld):
    """The real one, with a clock that can be moved."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


class Stores:
    """Both stores of one registry, and what is built on them."""

    def __init__(self, registry: Any, lanes: Any, tokens: Any, trails: dict[str, Any], tamper: Tamper) -> None:
        self.world = World()
        self.registry = registry
        self.lanes = lanes
        self.audit = Audit(registry, trails)
        self.tokens = Tokens(tokens, self.world)
        self.trails = trails
        self.tamper = tamper
        self.writer = GroupWriter(registry, CATALOGUE)
        self.service = RegistryService(
            catalogue=CATALOGUE,
            sealer=Sealer(Keyring.of(new_key(self.world)), bytes(32)),
            writer=self.writer,
            records=registry,
            log=registry,
            world=self.world,
        )

    def deed(self, action: str, **details: Any) -> Any:
        return deed(self.world, "uid:1", action, "target system/t", **details)

    async def put(self, name: str) -> None:
        document = {"kind": "alias", "name": name, "spec": {"command": name}}
        await self.service.put(document, actor=OPERATOR, message="why")


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Stores]:
    registry = SqliteRegistry.open(folder / "registry.db", CATALOGUE, SystemWorld())
    database = Database.open(folder / "propagation.db", "propagation")

    async def tamper(store: str, sql: str, *, guarded: bool = False) -> None:
        connection = apsw.Connection(str(folder / f"{store}.db"))
        if not guarded:
            connection.execute("DROP TRIGGER audit_guard_update; DROP TRIGGER audit_guard_delete")
        connection.execute(sql)
        connection.close()

    trails = {REGISTRY: SqliteTrail(registry.database), PROPAGATION: SqliteTrail(database)}
    stores = Stores(registry, SqliteLanes(database), SqliteTokens(registry.database), trails, tamper)
    try:
        yield stores
    finally:
        await stores.writer.close()
        database.close()
        registry.database.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Stores]:
    where = pgserver.database_of(folder)
    registry = await PostgresRegistry.open(where, CATALOGUE, SystemWorld())
    database = await PgDatabase.open(where, "propagation", SystemWorld())

    async def tamper(store: str, sql: str, *, guarded: bool = False) -> None:
        async with database.transaction() as connection:
            if not guarded:
                await connection.execute(f"ALTER TABLE {store}.audit DISABLE TRIGGER audit_guard")
            await connection.execute(f"SET LOCAL search_path = {store}")
            await connection.execute(sql)

    trails = {REGISTRY: PgTrail(registry.database, "registry"), PROPAGATION: PgTrail(database, "propagation")}
    stores = Stores(registry, PgLanes(database, SystemWorld()), PgTokens(registry.database), trails, tamper)
    try:
        yield stores
    finally:
        await stores.writer.close()
        await database.close()
        await registry.database.close()


ENGINES: dict[str, Callable[[Path], AbstractAsyncContextManager[Stores]]] = {"sqlite": sqlite, "postgres": postgres}


@pytest.fixture(params=ENGINES)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    async with ENGINES[request.param](tmp_path) as opened:
        yield opened


# --- the trail ------------------------------------------------------------------------------------------------------


async def test_rows_are_numbered_without_gaps_and_verify(stores: Stores) -> None:
    trail = stores.trails[REGISTRY]
    assert await stores.audit.verify_trail(REGISTRY) == 0
    await trail.record([stores.deed("key.rotate", kid="a"), stores.deed("key.retire")])
    await trail.record([])
    await trail.record([stores.deed("key.verify", odd="\0 \u202e", n=1.5)])
    rows = await trail.after(0, 10)
    assert [(row.number, row.action) for row in rows] == [(1, "key.rotate"), (2, "key.retire"), (3, "key.verify")]
    assert await stores.audit.verify_trail(REGISTRY) == 3
    assert (await trail.head()).hash == rows[-1].hash


async def test_what_is_written_twice_stands_there_once(stores: Stores) -> None:
    told = stores.deed("breaker.reset")
    await stores.trails[PROPAGATION].record([told])
    await stores.trails[PROPAGATION].record([told, stores.deed("breaker.open")])
    rows = await stores.trails[PROPAGATION].after(0, 10)
    assert [row.action for row in rows] == ["breaker.reset", "breaker.open"]


async def test_writers_at_once_make_one_chain(stores: Stores) -> None:
    await asyncio.gather(*(stores.trails[REGISTRY].record([stores.deed(f"x.{n}")]) for n in range(30)))
    assert await stores.audit.verify_trail(REGISTRY) == 30


async def test_settlements_carry_deeds_in_their_own_commit(stores: Stores) -> None:
    await stores.lanes.apply(Settlements(deeds=(stores.deed("target.pause", by="hand"),)))
    (row,) = await stores.trails[PROPAGATION].after(0, 10)
    assert (row.action, row.details) == ("target.pause", '{"by":"hand"}')


async def test_plain_sql_may_not_change_a_trail(stores: Stores) -> None:
    await stores.trails[REGISTRY].record([stores.deed("a.b")])
    for sql in ("UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"):
        with pytest.raises((apsw.Error, StorageUnavailable, Conflict), match="append-only"):
            await stores.tamper(REGISTRY, sql, guarded=True)
    assert await stores.audit.verify_trail(REGISTRY) == 1


# --- tampering ------------------------------------------------------------------------------------------------------

_MOVE = "UPDATE audit SET number = {} WHERE number = {}"
ALTERED = [
    ("UPDATE audit SET actor = 'nobody' WHERE number = 2", "row 2 was altered"),
    ("UPDATE audit SET details = '{}' WHERE number = 3", "row 3 was altered"),
    ("UPDATE audit SET at = '2020-01-01T00:00:00.000Z' WHERE number = 1", "row 1 was altered"),
    ("DELETE FROM audit WHERE number = 2", "row 2 is missing"),
    ("DELETE FROM audit WHERE number = 1", "row 1 is missing"),
    (f"{_MOVE.format(99, 2)}; {_MOVE.format(2, 3)}; {_MOVE.format(3, 99)}", "row 2 was altered"),
    (f"DELETE FROM audit WHERE number = 2; {_MOVE.format(2, 3)}; {_MOVE.format(3, 4)}", "row 2 was altered"),
]


@pytest.mark.parametrize("store", [REGISTRY, PROPAGATION])
@pytest.mark.parametrize(("sql", "says"), ALTERED, ids=[says + str(n) for n, (_, says) in enumerate(ALTERED)])
async def test_what_was_altered_removed_or_reordered_is_named(stores: Stores, store: str, sql: str, says: str) -> None:
    await stores.trails[store].record([stores.deed(f"a.{n}", n=n) for n in range(4)])
    assert await stores.audit.verify_trail(store) == 4
    await stores.tamper(store, sql)
    with pytest.raises(Corrupt, match=f"the audit trail of the {store} store: {says}"):
        await stores.audit.verify_trail(store)


async def test_a_cut_at_the_end_shows_against_an_anchor_only(stores: Stores) -> None:
    await stores.trails[REGISTRY].record([stores.deed(f"a.{n}") for n in range(4)])
    early = await stores.audit.anchor()
    await stores.trails[REGISTRY].record([stores.deed("a.b")])
    late = await stores.audit.anchor()
    assert await stores.audit.agree(anchors_in(f'{{"anchor":"{early}"}}\nsee {late}.')) == 2
    await stores.tamper(REGISTRY, "DELETE FROM audit WHERE number = 5")
    assert await stores.audit.verify_trail(REGISTRY) == 4
    assert await stores.audit.agree([early]) == 1
    with pytest.raises(Corrupt, match="the audit trail of the registry store was cut off: it was anchored at row 5"):
        await stores.audit.agree([early, late])


async def test_a_whole_chain_written_anew_shows_against_an_anchor(stores: Stores) -> None:
    await stores.trails[PROPAGATION].record([stores.deed("breaker.open"), stores.deed("breaker.reset")])
    anchor = await stores.audit.anchor()
    await stores.tamper(PROPAGATION, "DELETE FROM audit")
    await stores.trails[PROPAGATION].record([stores.deed("a.b"), stores.deed("c.d")])
    assert await stores.audit.verify_trail(PROPAGATION) == 2
    with pytest.raises(Corrupt, match="the audit trail of the propagation store was altered: row 2"):
        await stores.audit.agree([anchor])


async def test_anchors_cover_the_change_log(stores: Stores) -> None:
    empty = await stores.audit.anchor()
    await stores.put("a")
    await stores.put("b")
    anchor = await stores.audit.anchor()
    assert await stores.audit.agree([empty, anchor]) == 2
    text = str(anchor)
    (forged,) = anchors_in(text.replace(anchor.log.hash.hex(), "ab" * 32))
    with pytest.raises(Corrupt, match="the change log was altered: revision 2"):
        await stores.audit.agree([forged])
    (beyond,) = anchors_in(text.replace(":2.", ":3.", 1))
    with pytest.raises(Corrupt, match="the change log was cut off: it was anchored at revision 3"):
        await stores.audit.agree([beyond])
    (foreign,) = anchors_in(text.replace(anchor.incarnation, "0" * 12))
    with pytest.raises(NotFound, match="is of another registry"):
        await stores.audit.agree([foreign])


# --- looking --------------------------------------------------------------------------------------------------------


async def test_the_log_and_both_trails_are_one_list(stores: Stores) -> None:
    await stores.put("a")
    stores.world.ahead = timedelta(seconds=1)
    await stores.trails[REGISTRY].record([stores.deed("token.add", scopes=["read"])])
    stores.world.ahead = timedelta(seconds=2)
    await stores.lanes.apply(Settlements(deeds=(stores.deed("breaker.reset"),)))
    stores.world.ahead = timedelta(seconds=3)
    await stores.put("b")
    found = await stores.audit.newest(Asked())
    assert [(item["action"], item["trail"], item["place"]) for item in found] == [
        ("record.put", "log", "2.0"),
        ("breaker.reset", "propagation", "1"),
        ("token.add", "registry", "1"),
        ("record.put", "log", "1.0"),
    ]
    assert found[3]["subject"] == "alias default/a"
    assert found[3]["details"] == {"message": "why"}

    async def actions(**asked: Any) -> list[str]:
        return [item["action"] for item in await stores.audit.newest(Asked(**asked))]

    assert await actions(limit=2) == ["record.put", "breaker.reset"]
    assert await actions(actor="uid:1") == ["breaker.reset", "token.add"]
    assert await actions(actor="uid:1000") == ["record.put"] * 2
    assert await actions(action="breaker") == ["breaker.reset"]
    assert await actions(action="breaker.reset") == ["breaker.reset"]
    assert await actions(action="break") == []
    assert await actions(action="record.put") == ["record.put"] * 2
    assert await actions(action="record.delete") == []
    since = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert await actions(since=since) == ["record.put", "breaker.reset"]


# --- tokens ---------------------------------------------------------------------------------------------------------


async def test_a_token_opens_until_it_is_revoked(stores: Stores) -> None:
    token, secret = await stores.tokens.add("prom", ["read", "read"], actor="uid:1")
    assert token.scopes == ("read",)
    assert stores.tokens.find(secret) == token
    assert secret not in repr(await stores.tokens.all())
    version = stores.tokens.version
    await stores.tokens.revoke("prom", actor="uid:2")
    assert stores.tokens.find(secret) is None
    assert stores.tokens.version > version
    assert [(row.actor, row.action, row.subject) for row in await stores.trails[REGISTRY].after(0, 9)] == [
        ("uid:1", "token.add", "token prom"),
        ("uid:2", "token.revoke", "token prom"),
    ]
    assert secret not in repr(await stores.trails[REGISTRY].after(0, 9))


async def test_another_daemon_takes_changes_over_when_it_looks(stores: Stores) -> None:
    other = Tokens(stores.tokens._store, stores.world)
    _, secret = await stores.tokens.add("ci", ["write", "propagate"], actor="uid:1")
    assert other.find(secret) is None
    await other.load()
    found = other.find(secret)
    assert found is not None
    assert found.scopes == ("write", "propagate")
    version = other.version
    await other.load()
    assert other.version == version
    await stores.tokens.revoke("ci", actor="uid:1")
    await other.load()
    assert (other.find(secret), other.version) == (None, version + 1)


async def test_a_token_expires(stores: Stores) -> None:
    token, secret = await stores.tokens.add("ci", ["admin"], actor="uid:1", expires=timedelta(days=1))
    version = stores.tokens.version
    stores.world.ahead = timedelta(days=1, seconds=1)
    assert stores.tokens.find(secret) is None
    await stores.tokens.load()
    assert stores.tokens.version == version + 1
    assert stores.tokens.is_over(token)
    assert [each.name for each in await stores.tokens.all()] == ["ci"]


async def test_bad_names_and_scopes_change_nothing(stores: Stores) -> None:
    for name in ("", "admin", "a b", "-x", "x" * 64, "\u202e", "x\0"):
        with pytest.raises(Invalid, match="cannot be used"):
            await stores.tokens.add(name, ["read"], actor="uid:1")
    with pytest.raises(Invalid, match="no scope 'raed'") as caught:
        await stores.tokens.add("x", ["raed"], actor="uid:1")
    assert caught.value.hint == "did you mean 'read'?"
    with pytest.raises(Invalid, match="needs a scope"):
        await stores.tokens.add("x", [], actor="uid:1")
    await stores.tokens.add("ci", ["read"], actor="uid:1")
    with pytest.raises(Conflict, match="there is a token ci already"):
        await stores.tokens.add("ci", ["read"], actor="uid:1")
    for name in ("cj", "x\0y"):
        with pytest.raises(NotFound):
            await stores.tokens.revoke(name, actor="uid:1")
    assert await stores.audit.verify_trail(REGISTRY) == 1
