"""What compaction does to a change log, and what the audit trail says of it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from universal_registry.log.audit import Deed
from universal_registry.log.horizon import Horizon

DEED = "history.compact"
"""What the audit trail calls a move of the horizon."""


class Figures(NamedTuple):
    """`values` (with so many `bytes`) and `lines` that are still to go up to a horizon."""

    values: int
    bytes: int
    lines: int


class Size(NamedTuple):
    """Of the store: lines in the log, bytes on disk, and how many of these are free for what comes (None: the database
    does not say)."""

    lines: int
    bytes: int
    free: int | None


class Step(NamedTuple):
    """How many values or lines went, and whether there may be more to go."""

    gone: int
    more: bool


class HistoryStore(Protocol):
    """What compaction does to a log."""

    async def born(self, after: int, upto: int) -> int:
        """How many records more there were after revision `upto` than after `after`, by the lines between."""
        ...

    async def declare(self, before: Horizon, after: Horizon, told: Deed) -> bool:
        """Move the horizon, if it is still where it was before."""
        ...

    async def drop_values(self, limit: int) -> Step:
        """Look at the next `limit` lines, and drop the values behind the horizon that they made out of date."""
        ...

    async def remove_lines(self, limit: int) -> Step:
        """The same of whole lines, and of deletions."""
        ...

    async def foresee(self, values: int, lines: int) -> Figures:
        """What would go up to those revisions. Reads all of the lines there."""
        ...

    async def size(self) -> Size: ...

    async def give_back(self) -> bool:
        """Give free space back to the disk; nobody else may be at the store. False: this engine does so by itself."""
        ...


def checkpoint(horizon: Horizon) -> dict[str, Any]:
    """What the audit trail says of a horizon: with the trail it proves that what is behind it was not cut by others."""
    return {
        "values": horizon.values,
        "lines": horizon.lines,
        "hash": horizon.hash.hex(),
        "living": horizon.living,
    }
