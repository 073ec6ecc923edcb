"""Machines for the sync simulator: the product's own registry, writer and versions, in stores that are thrown away.

No daemon imports this; `ureg selftest sync` and the tests do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import apsw

from universal_registry.kernel.errors import NotFound
from universal_registry.kernel.ids import Key
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.check import check_registry
from universal_registry.registry.ports import LogReader
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sync_books import Books, Store, identity_in
from universal_registry.storage.sync_reviews import Reviews
from universal_registry.storage.sync_rows import kept_of
from universal_registry.storage.sync_store import Replica
from universal_registry.storage.writer import Batch, GroupWriter
from universal_registry.sync.audience import Reach, barred
from universal_registry.sync.identity import Identity, Renewal
from universal_registry.sync.ports import Applied, Digests, Feed, Keys, Peer
from universal_registry.sync.simworld import KEYS, LIMITED_SCOPE, Dice, SimWorld, Spec
from universal_registry.sync.version import Known, State, Vector

_CLUSTER = "simulation"
_EVERYTHING = ""
_SOMEBODY = Actor("uid:1000", admin=True)
_CLASSIFICATION = "ApiService"
_MOST_ROWS = 1000


def catalogue_of_simulation(catalogue: Catalogue) -> Catalogue:
    """The part of the product's catalogue that the simulator writes: a store of one kind opens five times as fast."""
    return Catalogue(
        kinds={name: catalogue.kinds[name] for name in {key.kind for key in KEYS}}, source=catalogue.source
    )


class OpenStore(Store, LogReader, Protocol):
    """A registry store of an engine."""

    def batch(self) -> AbstractAsyncContextManager[Batch]: ...


class Engine(Protocol):
    """How stores of one engine are opened, copied and removed. Each has a folder of its own."""

    what: str

    async def open(self, folder: Path, world: SimWorld) -> OpenStore:
        """The store of the folder, made if there is none."""
        ...

    async def close(self, store: Any) -> None: ...

    def copy(self, folder: Path, backup: Path) -> None:
        """All that is committed in the store of a folder, which is open, into a new one."""
        ...

    def put_back(self, backup: Path, folder: Path) -> None:
        """Make the store of a folder, which is closed or not there, that of another one."""
        ...

    def remove(self, folder: Path) -> None:
        """Of a closed store."""
        ...


class SqliteEngine:
    """Files. They are never flushed to the disk: here only what a process leaves behind is of interest."""

    what = "SQLite"

    def __init__(self, template: Path, catalogue: Catalogue) -> None:
        self._template = template
        self._catalogue = catalogue

    async def open(self, folder: Path, world: SimWorld) -> SqliteRegistry:
        self._make(folder)
        store = SqliteRegistry.open(_file(folder), self._catalogue, world)
        store.database.execute("PRAGMA synchronous=OFF")
        store.database.run_in(_AtOnce())
        return store

    def _make(self, folder: Path) -> None:
        if not self._template.exists():  # to make all tables takes longer than a run
            store = SqliteRegistry.open(self._template, self._catalogue, SimWorld(Dice(0), [0.0]))
            store.database.close()
        if not folder.exists():
            folder.mkdir()
            shutil.copyfile(self._template, _file(folder))

    async def close(self, store: SqliteRegistry) -> None:
        store.database.close()

    def copy(self, folder: Path, backup: Path) -> None:
        backup.mkdir()
        source, target = apsw.Connection(str(_file(folder))), apsw.Connection(str(_file(backup)))
        with target.backup("main", source, "main") as copying:
            copying.step()
        source.close()
        target.close()

    def put_back(self, backup: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(_file(backup), _file(folder))

    def remove(self, folder: Path) -> None:
        shutil.rmtree(folder)


class _AtOnce(Executor):
    """Runs what it is given, and then returns: a thread would cost more than a COMMIT that flushes nothing."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the caller's, as from a thread
            done.set_exception(error)
        return done


def _file(folder: Path) -> Path:
    return folder / "registry.db"


class Machine:
    """Disk (sync/simworld.py): a registry, its writer, and what it keeps for peers."""

    def __init__(self, engine: Engine, folder: Path, catalogue: Catalogue, world: SimWorld) -> None:
        self._engine = engine
        self.folder = folder
        self._copies: list[Path] = []
        self._marker = folder.with_suffix(".marker")
        self._catalogue = catalogue
        self._world = world
        self._sealer = Sealer(Keyring.of(new_key(world)), bytes(32))
        self.took: Callable[[Sequence[Known], bool], None] = lambda _known, _joins: None

    async def open(self) -> None:
        """Open the store, as a process does that starts."""
        self._store = await self._engine.open(self.folder, self._world)
        self._writer = GroupWriter(self._store, self._catalogue)
        books = Books(self._store, self._writer, self._catalogue, self._world)
        self._replica, self._reviews = Replica(books), Reviews(books)
        self._writer.keep_versions(self._replica)
        self._service = RegistryService(
            catalogue=self._catalogue,
            sealer=self._sealer,
            writer=self._writer,
            records=self._store,
            log=self._store,
            world=self._world,
        )

    async def _shut(self) -> None:
        await self._writer.close()
        await self._engine.close(self._store)

    # --- what the machine does -----------------------------------------------------------------------------------

    async def join(self) -> None:
        """Become a node of the group, once."""
        await self._replica.enable(_CLUSTER, (_EVERYTHING,))

    async def start(self) -> Renewal | None:
        return await self._replica.start(self._marker, shared=False)

    async def kill(self) -> None:
        await self._shut()
        await self.open()

    async def copy(self) -> Path:
        backup = self.folder.with_name(f"{self.folder.name}-{len(self._copies)}")
        self._copies.append(backup)
        self._engine.copy(self.folder, backup)
        return backup

    async def put_back(self, backup: Path) -> None:
        await self._shut()
        self._engine.put_back(backup, self.folder)
        await self.open()

    async def close(self) -> None:
        await self._shut()
        self._marker.unlink(missing_ok=True)
        for folder in (self.folder, *self._copies):
            self._engine.remove(folder)

    async def edit(self, key: Key, change: Callable[[Spec], Spec | None]) -> bool:
        before = (await self._replica.identity()).feed
        made = change(await self.shown(key) or {})
        if made is None:
            await self._service.delete(key, actor=_SOMEBODY, missing_ok=True)
        else:
            spec = {name: value for name, value in made.items() if name != "title"}
            document = {**key._asdict(), "classification": _CLASSIFICATION, "spec": spec}
            if "title" in made:
                document["title"] = made["title"]
            await self._service.put(document, actor=_SOMEBODY)
        return (await self._replica.identity()).feed != before

    async def limit(self, members: Sequence[str]) -> None:
        await self._replica.audience(LIMITED_SCOPE, members, _SOMEBODY.name)

    def reach(self, own: Identity, peer: str) -> Reach:
        without = barred(own.audiences, own.node, peer)
        return Reach(self._replica.selector(_EVERYTHING), tuple(map(self._replica.selector, without)))

    async def purge(self) -> None:
        await self._reviews.purge()

    async def shown(self, key: Key) -> Spec | None:
        try:
            record = await self._service.get(key)
        except NotFound:
            return None
        return {**record.spec, "title": record.title} if record.title else dict(record.spec)

    async def held(self) -> tuple[Identity, dict[Key, State]]:
        async with self._store.sync_view() as view:
            identity = await identity_in(view)
            kept = [kept_of(row) for row in await view.ask("feed", 0, _MOST_ROWS)]
        return identity, {each.key: each.entry.state for each in kept}

    async def check(self) -> None:
        await check_registry(self._store, self._store, self._service.event_commitment)

    # --- SyncStore -----------------------------------------------------------------------------------------------

    async def identity(self) -> Identity:
        return await self._replica.identity()

    async def peer(self, node: str) -> Peer:
        return await self._replica.peer(node)

    async def save_peer(self, peer: Peer) -> None:
        await self._replica.save_peer(peer)

    async def forget_peer(self, node: str) -> None:
        await self._replica.forget_peer(node)

    async def feed(self, scope: Keys, after: int, seen: Vector, max_bytes: int) -> Feed:
        return await self._replica.feed(scope, after, seen, max_bytes)

    async def states(self, keys: Sequence[Key]) -> tuple[list[Known], Vector]:
        return await self._replica.states(keys)

    async def take(self, peer: Peer, records: Sequence[Known], vector: Vector, *, joins: bool) -> Applied:
        applied = await self._replica.take(peer, records, vector, joins=joins)
        self.took(records, joins)
        return applied

    async def digests(self, scope: Keys, after: int) -> Digests:
        return await self._replica.digests(scope, after)

    async def renew(self, why: Renewal) -> Identity:
        return await self._replica.renew(why)


class Workshop:
    """Machines (sync/simworld.py) with folders in one folder."""

    def __init__(self, folder: Path, engine: Engine, catalogue: Catalogue) -> None:
        self.what = engine.what
        self._folder = folder
        self._engine = engine
        self._catalogue = catalogue
        self._made = 0

    async def new(self, world: SimWorld) -> Machine:
        machine = self._machine(world)
        await machine.open()
        await machine.join()
        await machine.start()
        return machine

    async def clone(self, backup: Path, world: SimWorld) -> Machine:
        machine = self._machine(world)
        self._engine.put_back(backup, machine.folder)
        await machine.open()
        return machine

    def _machine(self, world: SimWorld) -> Machine:
        self._made += 1
        return Machine(self._engine, self._folder / f"m{self._made}", self._catalogue, world)
