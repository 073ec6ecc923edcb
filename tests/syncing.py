"""Registries that keep the same records, in one process, and sessions between them from hello to quiet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pgserver

from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import PostgresSettings
from universal_registry.kernel.world import SystemWorld, World
from universal_registry.registry.catalogue import SOURCE, decode_catalogue
from universal_registry.registry.compile import compile_source
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sync_books import Books
from universal_registry.storage.sync_reviews import Reviews
from universal_registry.storage.sync_store import Replica
from universal_registry.storage.writer import GroupWriter
from universal_registry.sync.audience import Reach
from universal_registry.sync.greeting import Link
from universal_registry.sync.session import Phase, Session

WORLD = SystemWorld()
_SOURCE = (
    SOURCE.read_bytes()
    .replace(b"panes: {type: array,", b"panes: {type: array, merge: 'list_by:title',")
    .replace(
        b"value: {type: string, secret: true, doc: the value}",
        b"value: {type: string, secret: true, required: true, doc: v}",
    )
)
CATALOGUE = decode_catalogue(compile_source(_SOURCE))
"""The product's, with what none of its kinds has yet: a list that merges by a field, and a secret that is required."""
OPERATOR = Actor("uid:1000", admin=True)
ALL = ""
GS = Key("alias", "default", "gs")


@dataclass
class Node:
    service: RegistryService
    replica: Replica
    reviews: Reviews
    store: Any
    books: Books
    name: str = ""

    async def set(self, name: str, **spec: Any) -> None:
        """Merge into the spec of an alias."""
        document = {"kind": "alias", "name": name, "classification": "ZshAlias", "spec": spec}
        await self.service.merge(document, actor=OPERATOR)

    async def spec(self, name: str) -> dict[str, Any] | None:
        record = await self.store.get(Key("alias", "default", name))
        return None if record is None else dict(record.spec)


Opener = Callable[[Path], AbstractAsyncContextManager[Node]]


def node_of(store: Any, writer: GroupWriter) -> Node:
    sealer = Sealer(Keyring.of(new_key(WORLD)), bytes(32))
    books = Books(store, writer, CATALOGUE, WORLD)
    replica = Replica(books)
    writer.keep_versions(replica)
    service = RegistryService(catalogue=CATALOGUE, sealer=sealer, writer=writer, records=store, log=store, world=WORLD)
    return Node(service, replica, Reviews(books), store, books)


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Node]:
    store = SqliteRegistry.open(folder / "registry.db", CATALOGUE, WORLD)
    writer = GroupWriter(store, CATALOGUE)
    try:
        yield node_of(store, writer)
    finally:
        await writer.close()
        store.database.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Node]:
    async with on_postgres(pgserver.database_of(folder)) as node:
        yield node


@asynccontextmanager
async def on_postgres(settings: PostgresSettings) -> AsyncIterator[Node]:
    store = await PostgresRegistry.open(settings, CATALOGUE, WORLD)
    writer = GroupWriter(store, CATALOGUE)
    try:
        yield node_of(store, writer)
    finally:
        await writer.close()
        await store.database.close()


PAIRS: dict[str, tuple[Opener, Opener]] = {
    "sqlite": (sqlite, sqlite),
    "postgres": (postgres, postgres),
    "mixed": (sqlite, postgres),
}


async def session_with(node: Node, other: Node, world: World = WORLD, **limits: int) -> Session:
    theirs = await other.replica.identity()
    return Session(node.replica, Link(theirs.node, ALL, Reach(node.replica.selector(ALL))), world, **limits)


async def sync(one: Node, other: Node) -> list[bytes]:
    """A session from hello to quiet; all frames that went."""
    return await settle(await session_with(one, other), await session_with(other, one))


async def settle(left: Session, right: Session) -> list[bytes]:
    """The same with the sessions given."""
    sent: list[bytes] = []
    queues = {right: await left.open(), left: await right.open()}
    for _ in range(1000):
        for receiver, sender in ((right, left), (left, right)):
            frames, queues[receiver] = queues[receiver], []
            sent += frames
            for frame in frames:
                queues[sender] += await receiver.receive(frame)
        if not any(queues.values()):
            queues[right] += await left.tick()
            queues[left] += await right.tick()
            if not any(queues.values()):
                assert (left.phase, right.phase) == (Phase.IN_SYNC, Phase.IN_SYNC)
                assert left.root == right.root
                return sent
    raise AssertionError("they never came to rest")
