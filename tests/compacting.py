"""Compaction of a registry of `watching.py`, for the suites that prove what is left of the log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from watching import Watched

from universal_registry.kernel.settings import HistorySettings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.compaction import HistoryStore
from universal_registry.registry.retention import Reader
from universal_registry.storage.compaction import Compaction
from universal_registry.storage.compaction_postgres import PgHistory
from universal_registry.storage.compaction_sqlite import SqliteHistory
from universal_registry.storage.registry_sqlite import SqliteRegistry


class Later(SystemWorld):
    """Some time after everything was written."""

    def __init__(self, by: timedelta = timedelta(hours=1)) -> None:
        self.by = by

    def now(self) -> datetime:
        return super().now() + self.by


def history_of(watched: Watched) -> HistoryStore:
    store: Any = watched.service.log
    return SqliteHistory(store) if isinstance(store, SqliteRegistry) else PgHistory(store)


async def compaction_to(
    watched: Watched,
    *,
    values: int,
    lines: int = 0,
    readers: Sequence[Reader] = (),
    store: HistoryStore | None = None,
) -> Compaction:
    """One that would keep the values after revision `values` and the lines after `lines`; 0: all of them."""
    head = (await watched.service.log.head()).revision

    async def who() -> Sequence[Reader]:
        return readers

    settings = HistorySettings(
        value_days=0.0,
        value_revisions=head - values if values else 0,
        line_days=0.0,
        line_revisions=head - lines if lines else 0,
    )
    return Compaction(watched.service.log, store or history_of(watched), Later(), settings, who, background=True)


async def compact(watched: Watched, **to: Any) -> dict[str, Any]:
    """Do it, to its end. Arguments as of `compaction_to`."""
    done = await (await compaction_to(watched, **to)).run("uid:1000", 60.0)
    assert done["done"]
    return done
