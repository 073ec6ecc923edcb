"""Where rows come from and go to, as the settings say: each engine's driver is imported when it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from universal_registry.kernel.settings import Places, PostgresSettings, Settings
from universal_registry.kernel.world import World
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.storage.copying import Sinks, Source


@asynccontextmanager
async def source_of(settings: Settings, world: World) -> AsyncIterator[Source]:
    """The registry that the settings name, at one point."""
    if settings.database is not None:
        from universal_registry.storage.copy_postgres import postgres_source

        async with postgres_source(settings.database, world) as found:
            yield found
    else:
        async with folder_source(settings.home) as here:
            yield here


@asynccontextmanager
async def folder_source(folder: Path) -> AsyncIterator[Source]:
    """The SQLite files in a folder, at one point."""
    from universal_registry.storage.copy_sqlite import sqlite_source

    async with sqlite_source(Places(folder)) as found:
        yield found


def folder_sinks(folder: Path) -> Sinks:
    """Two SQLite files in a folder that has none."""
    from universal_registry.storage.copy_sqlite import SqliteFolder

    return SqliteFolder(folder, load_catalogue())


def server_sinks(database: PostgresSettings, world: World, *, aside: str = "") -> Sinks:
    """Two schemas of a PostgreSQL database (`PostgresSchemas`)."""
    from universal_registry.storage.copy_postgres import PostgresSchemas

    return PostgresSchemas(database, load_catalogue(), world, aside=aside)
