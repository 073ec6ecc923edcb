"""The composition root: the only module that picks adapters and puts the product together.

`init` makes a home, `open_app` opens it, as its one owner or for reading. `embedded` is the API in the caller's own
process, for commands that run without a daemon; `serving.py` is the daemon.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from universal_registry.api.auth import Auth
from universal_registry.api.context import Observed
from universal_registry.api.dispatch import Api
from universal_registry.api.inprocess import Embedded, InProcess
from universal_registry.environment import state_dir
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import SystemWorld, World
from universal_registry.linking import links_of, marker_in
from universal_registry.observe.audit import REGISTRY, Audit
from universal_registry.observe.denials import Denials
from universal_registry.observe.figures import Compacted, FiguresReader
from universal_registry.observe.health import Health
from universal_registry.observe.logs import Log
from universal_registry.observe.readers import readers
from universal_registry.observe.streams import Traffic
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.lanes.outcome_counts import Tally
from universal_registry.propagation.studio.exchange import StudioExchange
from universal_registry.propagation.views.inventory import EngineView, NoEngine
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.consumers import Consumers
from universal_registry.registry.key_control import KeyControl
from universal_registry.registry.keys import open_keys
from universal_registry.registry.service import RegistryService
from universal_registry.registry.tokens import Tokens
from universal_registry.runner.ports import DAEMON, Duty
from universal_registry.security.cipher import Sealer
from universal_registry.sending import transports_of
from universal_registry.storage.compaction import Compaction
from universal_registry.storage.home import admin_token_hash, is_initialised, none_here, prepare_home
from universal_registry.storage.keyfile import key_files
from universal_registry.storage.lock import StoreLock, read_holder
from universal_registry.storage.replacing import finish_replacing
from universal_registry.storage.writer import GroupWriter
from universal_registry.stores import Lanes, Others, Registry, Stores, open_stores
from universal_registry.transports.peer import Links, Pairing, Status

if TYPE_CHECKING:
    from universal_registry.propagation.engine.engine import Engine
    from universal_registry.runner.drive import Driver

COMMAND = "command"


class Initialised(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` found and made. `created`: the files that were not there before. `new`: there was no registry.
    `served`: a daemon runs, and nothing was made."""

    home: Path
    new: bool
    served: bool
    created: tuple[Path, ...]
    incarnation: str
    revision: int


class App:
    """An opened registry. `engine`: None when it was opened for reading."""

    def __init__(self, settings: Settings, world: World, stores: Stores, sealer: Sealer, writer: GroupWriter) -> None:
        self.settings = settings
        self.world = world
        self.stores = stores
        self.registry: Registry = stores.registry
        self.lanes: Lanes = stores.lanes
        self.sealer = sealer
        self.others: Others | None = stores.watch(writer.wake) if stores.watch else None
        self.service: RegistryService
        self.engine: Engine | None = None
        self.control: PropagationControl
        self.keys: KeyControl
        self.compaction: Compaction
        self.tokens = Tokens(stores.tokens, world)
        self.traffic = Traffic(stores.streams, world)
        self.audit = Audit(stores.registry, stores.trails)
        self.denials = Denials(world, stores.trails[REGISTRY].record)
        self.tally = Tally()
        self.figures: FiguresReader
        self.health: Health
        self.api: Api
        self.links: Links
        self.closing = AsyncExitStack()

    async def close(self) -> None:
        """Finish what was submitted, close the files, let go of the lock."""
        await self.closing.aclose()


# --- opening --------------------------------------------------------------------------------------------------------


async def open_app(
    settings: Settings,
    *,
    world: World,
    read_only: bool = False,
    create: bool = False,
    role: str = COMMAND,
    duty: Duty | None = None,
    unexpected: Callable[[BaseException, str], None] | None = None,
) -> App:
    """Open the registry of a home: as its one owner, under the lock, or for reading, which waits for nobody.

    `create`: make what is missing. `duty`: the daemon, for health.
    `unexpected`: told of bugs that a request met. Raises NotFound (no registry here), StoreLocked naming the holder,
    KeyMismatch, NewerStore, ReadOnlyStore, StorageFull, StorageUnavailable.
    """
    places = Places(settings.home)
    if not read_only:
        finish_replacing(places, wait=settings.lock_wait)
    if not create and not is_initialised(places, settings.key_file, files=settings.database is None):
        raise none_here(places, files=settings.database is None)
    async with AsyncExitStack() as stack:
        if not read_only:
            stack.callback(_lock(places, settings, role).release)
        catalogue = load_catalogue()
        stores = await open_stores(settings, catalogue, world, stack, read_only=read_only)
        registry = stores.registry
        files = key_files(settings, world)
        sealer = await open_keys(files, registry, stores.keys, world, read_only=read_only, on_stranger=_told_of_a_key)
        writer = GroupWriter(registry, catalogue)
        stack.push_async_callback(writer.close)
        app = App(settings, world, stores, sealer, writer)
        app.service = RegistryService(
            catalogue=catalogue, sealer=sealer, writer=writer, records=registry, log=registry, world=world
        )
        marker, opens = marker_in(state_dir(), settings.home), stores.opens_links
        app.links = await links_of(
            app.service, registry, writer, sealer, world, marker=marker, opens_links=opens, read_only=read_only
        )
        app.keys = KeyControl(
            store=stores.keys,
            facts=registry,
            files=files,
            sealer=sealer,
            world=world,
            settings=settings.encryption,
            drain=writer.drain,
            shared=stores.watch is not None,
            background=role == DAEMON,
        )
        app.compaction = Compaction(
            registry, stores.history, world, settings.history,
            lambda: readers(registry, stores.lanes, stores.consumers.consumers, app.figures.watches),
            background=role == DAEMON,
        )  # fmt: skip
        await app.tokens.load()
        view = _propagation(app, stack, read_only=read_only)
        _front(app, view, duty, unexpected or _unexpected)
        app.closing = stack.pop_all()
        return app


def _told_of_a_key(kid: str) -> None:
    kept = "it is kept in config/keys, and the key that seals stands there again"
    Log("keys").warning(f"key {kid}, which this registry does not know, stood in the key file: {kept}", kid=kid)


def _lock(places: Places, settings: Settings, role: str) -> StoreLock:
    """A daemon holds its lock for long: nobody waits for that. Commands are soon done."""
    holder = read_holder(places.lock)
    wait = 0.0 if holder is not None and holder.role == DAEMON and role == DAEMON else settings.lock_wait
    return StoreLock.acquire(places.lock, role=role, wait=wait)


def _propagation(app: App, stack: AsyncExitStack, *, read_only: bool) -> EngineView:
    transports = transports_of(app.world, app.tally, app.traffic.count)
    for transport in transports.values():
        stack.push_async_callback(transport.close)
    view: EngineView = NoEngine()
    if not read_only:
        from universal_registry.propagation.engine.engine import Engine

        shared = app.stores.watch is not None
        view = app.engine = Engine(app.service, app.lanes, transports, app.settings, shared=shared)
    app.control = PropagationControl(
        app.service, app.lanes, transports, view, app.world, app.settings, store_name=app.stores.engine
    )
    return view


def _front(app: App, view: EngineView, duty: Duty | None, unexpected: Callable[[BaseException, str], None]) -> None:
    app.health = Health(
        head=app.registry.head,
        troubles=app.stores.troubles,
        unready=duty.unready if duty else str,
        workers=duty.workers if duty else tuple,
        world=app.world,
    )
    app.control.counterparts = Status(app.links).counterparts
    app.figures = FiguresReader(
        app.service, app.lanes, view, app.health, app.tally, app.denials, store=app.stores.engine,
        under_way=app.engine.under_way if app.engine else dict,
    )  # fmt: skip
    app.figures.streams = app.traffic.open_now
    link_status = Status(app.links)
    app.figures.peers = link_status.all
    app.figures.compacted = lambda: Compacted(values=app.compaction.values, lines=app.compaction.lines)
    consumers = Consumers(app.stores.consumers, app.registry, app.world)
    observed = Observed(
        tokens=app.tokens, keys=app.keys, compaction=app.compaction, audit=app.audit, denials=app.denials,
        figures=app.figures, consumers=consumers, streams=app.traffic,
        studio=StudioExchange(app.service, consumers, app.stores.studio, app.world),
        links=app.links, pairing=Pairing(app.links), link_status=link_status,
    )  # fmt: skip
    app.api = Api(
        service=app.service,
        control=app.control,
        health=app.health,
        auth=Auth(uid=os.geteuid(), admin_token_hash=admin_token_hash(Places(app.settings.home)), tokens=app.tokens),
        observed=observed,
        world=app.world,
        unexpected=unexpected,
    )


def _unexpected(error: BaseException, _trace_id: str) -> None:
    raise error  # a command has no log: its caller is to see it


# --- a new home -----------------------------------------------------------------------------------------------------


def init(settings: Settings, world: World | None = None) -> Initialised:
    """Make the home: folders, key, databases, admin token. Changes nothing that is there already, however often, and
    makes nothing while a daemon runs.

    Raises KeyMismatch, NewerStore, ReadOnlyStore, StorageFull, StoreLocked (by another command, for too long).
    """
    return asyncio.run(_init(settings, world or SystemWorld()))


async def _init(settings: Settings, world: World) -> Initialised:
    places = Places(settings.home)
    here = settings.database is None
    files = (settings.key_file, places.admin_token, *((places.registry_db, places.propagation_db) if here else ()))
    before = {file for file in files if file.exists()}
    new = not is_initialised(places, settings.key_file, files=here)
    holder = read_holder(places.lock)
    served = holder is not None and holder.role == DAEMON and not new
    if not served:
        # Not below a running daemon, which would not know of a new token.
        prepare_home(places, world, files=here)
    app = await open_app(settings, world=world, read_only=served, create=True, role="init")
    try:
        head = await app.registry.head()
    finally:
        await app.close()
    created = tuple(file for file in files if file.exists() and file not in before)
    return Initialised(
        home=places.home,
        new=new,
        served=served,
        created=created,
        incarnation=head.incarnation,
        revision=head.revision,
    )


# --- without a daemon -----------------------------------------------------------------------------------------------


def embedded(settings: Settings, *, world: World | None = None, drive: bool = True) -> InProcess:
    """The API in this process, as a Caller: for commands when no daemon runs.

    Reads take no lock. The first write takes the store's, waiting `settings.lock_wait` seconds (StoreLocked then names
    its holder), and keeps it until `close`. With `drive`, a request that propagates returns when each delivery that is
    due has been tried; from then on every read first tries what has become due, so that polling sees retries.
    """
    world = world or SystemWorld()

    async def opened(*, writes: bool) -> App:
        return await open_app(settings, world=world, read_only=not writes)

    def driver(app: App) -> Driver:
        from universal_registry.runner.drive import Driver

        assert app.engine is not None
        return Driver(app.engine, world)

    own = Embedded(opened, driver if drive else None, settings.retry.timeout_seconds + 5.0)
    return InProcess(own.answer, own.close)
