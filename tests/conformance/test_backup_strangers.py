"""What others keep in a database is never taken for an empty registry."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pgserver
import pytest

from universal_registry.app import open_app
from universal_registry.care.moving import move_to_postgres
from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.settings import PostgresSettings, Settings
from universal_registry.kernel.world import SystemWorld

WORLD = SystemWorld()


async def connected(database: PostgresSettings) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=database.host, port=database.port, user=database.user, database=database.name, password=database.password
    )


async def test_a_schema_of_another_program_stays_as_it_is(postgres: pgserver.Server, tmp_path: Path) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    await (await open_app(here, world=WORLD, create=True)).close()
    database = postgres.database("strangers")
    connection = await connected(database)
    try:
        await connection.execute("CREATE SCHEMA registry; CREATE TABLE registry.cars (plate text)")
        await connection.execute("INSERT INTO registry.cars VALUES ('B-1')")
        with pytest.raises(Conflict, match="something else is kept there"):
            await move_to_postgres(here, database, WORLD)
        assert await connection.fetchval("SELECT plate FROM registry.cars") == "B-1"
        await connection.execute("DROP TABLE registry.cars")
    finally:
        await connection.close()
    await move_to_postgres(here, database, WORLD)  # an empty schema is in nobody's way
