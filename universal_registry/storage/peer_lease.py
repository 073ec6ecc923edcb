"""Which of several daemons of one database opens the links with peers: whoever holds a lock, which ends with it."""

from __future__ import annotations

from typing import Any

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.postgres_errors import translated

_LOCK = 0x70656572  # "peer": one link a peer, whoever of us has it
_HELD = f"classid = 0 AND objid = {_LOCK} AND locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
_TAKE = f"SELECT EXISTS (SELECT 1 FROM pg_locks WHERE {_HELD}) OR pg_try_advisory_lock({_LOCK})"


class PgLease:
    """An advisory lock on a connection of its own: the server gives it up when that is gone, however a daemon ended."""

    def __init__(self, database: PgDatabase) -> None:
        self._database = database
        self._connection: Any = None

    async def holds(self) -> bool:
        """Whether it is this daemon. To be asked every second. False while the database cannot be reached."""
        try:
            if self._connection is None:
                self._connection = await self._database.alone()
            with translated(self._database.place):
                return bool(await self._connection.fetchval(_TAKE))
        except StorageUnavailable:
            self.close()
            return False

    def close(self) -> None:
        """Give it up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
