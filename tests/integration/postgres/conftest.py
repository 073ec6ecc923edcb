"""Registries on PostgreSQL, as daemons hold them: any number on one database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pgserver
import pytest

from universal_registry.kernel.settings import PostgresSettings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.writer import GroupWriter

WORLD = SystemWorld()
CATALOGUE = load_catalogue()
SEALER = Sealer(Keyring.of(new_key(WORLD)), bytes(32))


class Daemon:
    """The registry's part of a daemon."""

    def __init__(self, store: PostgresRegistry) -> None:
        self.store = store
        self.writer = GroupWriter(store, CATALOGUE)
        self.service = RegistryService(
            catalogue=CATALOGUE, sealer=SEALER, writer=self.writer, records=store, log=store, world=WORLD
        )


Opener = Callable[[PostgresSettings], AbstractAsyncContextManager[Daemon]]


@pytest.fixture
def opened() -> Opener:
    """Opens what a daemon has."""

    @asynccontextmanager
    async def open_it(settings: PostgresSettings) -> AsyncIterator[Daemon]:
        daemon = Daemon(await PostgresRegistry.open(settings, CATALOGUE, WORLD))
        try:
            yield daemon
        finally:
            await daemon.writer.close()
            await daemon.store.database.close()

    return open_it


@pytest.fixture
def database(postgres: pgserver.Server, tmp_path) -> PostgresSettings:
    """A database with the registry's tables, or for them."""
    return postgres.of_folder(tmp_path)


@pytest.fixture
async def daemon(opened: Opener, database: PostgresSettings) -> AsyncIterator[Daemon]:
    async with opened(database) as one:
        yield one
