"""Stores of simulated machines on PostgreSQL: a database for each folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pgserver

from universal_registry.registry.catalogue import Catalogue
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.sync.simworld import SimWorld


class PostgresEngine:
    """Engine (storage/sync_machines.py). Copies are dumps, made while the store is in use."""

    what = "PostgreSQL"

    def __init__(self, server: pgserver.Server, catalogue: Catalogue) -> None:
        self._server = server
        self._catalogue = catalogue

    async def open(self, folder: Path, world: SimWorld) -> PostgresRegistry:
        return await PostgresRegistry.open(self._server.database(_name(folder)), self._catalogue, world)

    async def close(self, store: PostgresRegistry) -> None:
        await store.database.close()

    def copy(self, folder: Path, backup: Path) -> None:
        self._server.database(_name(backup))
        command = [*self._server.psql(_name(backup)), "-v", "ON_ERROR_STOP=1"]
        subprocess.run(command, input=self._server.dump(_name(folder)), capture_output=True, check=True)

    def put_back(self, backup: Path, folder: Path) -> None:
        self.remove(folder)
        self._server.database(_name(folder), template=_name(backup))

    def remove(self, folder: Path) -> None:
        self._server.database(_name(folder))  # there may be none
        self._server.drop_database(_name(folder))


def _name(folder: Path) -> str:
    return f"sim_{folder.name}".replace("-", "_")
