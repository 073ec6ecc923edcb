"""Other processes write the same database: notices their commits, by NOTIFY and, as the net, by looking."""

from __future__ import annotations

from collections.abc import Callable

from universal_registry.kernel.errors import RegistryError
from universal_registry.storage.postgres import Listening
from universal_registry.storage.registry_postgres import PostgresRegistry

_CHANNEL = "ureg"


class CommitWatch:
    """Calls `wake` when the log may have grown by others' hands. A wake-up: it carries nothing, and may come twice."""

    def __init__(self, registry: PostgresRegistry, wake: Callable[[], None]) -> None:
        self._registry = registry
        self._wake = wake
        self._listening: Listening | None = None
        self._seen = -1

    async def look(self) -> None:
        """Listen, if the connection for that was lost, and see whether the head has moved. To be called every second.

        Never raises for a database that is gone: the next look is at one that may be back.
        """
        try:
            if self._listening is None or self._listening.lost:
                self._listening = await self._registry.database.listen(_CHANNEL, self._wake)
            revision = (await self._registry.head()).revision
        except RegistryError:
            return
        if revision != self._seen:
            self._seen = revision
            self._wake()

    async def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.close()
