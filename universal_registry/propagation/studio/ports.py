"""What is exchanged with studios, as it is stored: history for people, read by nobody to decide anything."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

MOST_KEPT = 10_000
"""So many rows are kept, the newest."""


class SyncStatus(StrEnum):
    """How far it is. PENDING: told, and not acknowledged yet."""

    PENDING = "pending"
    EXECUTED = "executed"
    FAILED = "failed"


class Exchanged(msgspec.Struct, frozen=True, kw_only=True):
    """One record that went one way. `entry`: `kind/namespace/name`; `way`: `pull` (the studio is told) or `push`;
    `revision`: of the registry, at which it was so. Times are RFC 3339, UTC."""

    studio: str
    entry: str
    component: str
    direction: str
    way: str
    revision: int
    status: SyncStatus
    reason: str = ""
    created_at: str
    updated_at: str


class SyncLog(Protocol):
    """Where it is kept: the newest rows, beside the lanes."""

    async def add_exchanged(self, rows: Sequence[Exchanged]) -> None:
        """Add them, in one commit. What is pending for the same studio, entry, component and revision is there once.
        Raises StorageUnavailable, with nothing added."""
        ...

    async def acknowledged(self, studio: str, revision: int, at: str) -> None:
        """What the studio was told up to that revision is executed."""
        ...

    async def exchanged(self, entry: str | None, studio: str | None, limit: int) -> Sequence[Exchanged]:
        """The newest first; of one entry, of one studio, if they are given."""
        ...
