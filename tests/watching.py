"""A registry and its watch hubs on either engine, for the suites that prove the watch contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pgserver

from universal_registry.api.watch_hub import WatchHub
from universal_registry.api.watch_ring import RingLimits
from universal_registry.api.watcher import Watcher
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.selector import Selector, parse_selector
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


class Watched:
    """A registry and its hubs. `hub` has what is written from the writer. `apart` reads it, as if another process had
    written it; so does `small`, with a ring of four revisions, so that most is read from behind it."""

    def __init__(self, service: RegistryService) -> None:
        self.service = service
        self.hub = WatchHub(service, WORLD)
        self.apart = WatchHub(service, WORLD)
        self.small = WatchHub(service, WORLD, RingLimits(revisions=4))
        service.newest.on_coming(self.hub.on_coming)
        service.on_commit(self.hub.on_commit)
        for hub in (self.apart, self.small):
            service.on_commit(hub.look_again)
            service.on_commit(hub.wakeup.notify)

    async def put(self, name: str, value: str = "x", **more: Any) -> int:
        """Make the alias of that name exactly this; the revision."""
        document = {"kind": "alias", "namespace": "default", "name": name, "spec": {"command": value}, **more}
        return (await self.service.put(document, actor=OPERATOR)).revision

    async def delete(self, name: str) -> int:
        return (await self.service.delete(Key("alias", "default", name), actor=OPERATOR)).revision

    def selector(self, text: str) -> Selector:
        return parse_selector(text, CATALOGUE)


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Watched]:
    store = SqliteRegistry.open(folder / "registry.db", CATALOGUE, WORLD)
    async with _over(store) as watched:
        yield watched
    store.database.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Watched]:
    store = await PostgresRegistry.open(pgserver.database_of(folder), CATALOGUE, WORLD)
    async with _over(store) as watched:
        yield watched
    await store.database.close()


@asynccontextmanager
async def _over(store: Any) -> AsyncIterator[Watched]:
    writer = GroupWriter(store, CATALOGUE)
    try:
        yield Watched(
            RegistryService(catalogue=CATALOGUE, sealer=SEALER, writer=writer, records=store, log=store, world=WORLD)
        )
    finally:
        await writer.close()


Opener = Callable[[Path], AbstractAsyncContextManager[Watched]]
ENGINES: dict[str, Opener] = {"sqlite": sqlite, "postgres": postgres}


async def read(watcher: Watcher, *, until: str = "synced") -> list[dict[str, Any]]:
    """All frames up to the first batch that ends with that type."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not found or found[-1]["type"] != until:
            frames = await watcher.next()
            assert frames, found
            found += [orjson.loads(frame.data) for frame in frames]
    return found


async def read_events(watcher: Watcher, count: int) -> list[dict[str, Any]]:
    """Frames until they hold so many events."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(events(found)) < count:
            found += [orjson.loads(frame.data) for frame in await watcher.next()]
    return found


def events(frames: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(op, name, command after) of all events."""
    return [
        (event["op"], event["name"], event.get("record", {}).get("spec", {}).get("command", ""))
        for frame in frames
        for event in frame.get("events", ())
    ]
