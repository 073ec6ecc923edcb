"""How many lines of the log lie behind a place: counted up to a bound, with one read for all places that are asked for.

A revision may have thousands of lines, so that a number of revisions says little about what is still to come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from universal_registry.propagation.lanes.lane import WHOLE, Position
from universal_registry.registry.ports import LogReader

MOST_COUNTED = 10_000


class Unread:
    """Knows the newest lines of the log, by (revision, seq), the newest first."""

    def __init__(self, newest: Sequence[tuple[int, int]] = ()) -> None:
        self._lines = newest[::-1]

    def behind(self, place: Position) -> int:
        """How many lines lie behind it; MOST_COUNTED: so many or more."""
        return len(self._lines) - bisect_right(self._lines, (place.revision, place.seq))


async def unread_from(log: LogReader, places: Iterable[Position], head: int) -> Unread:
    """For those of the places that are not at the end of revision `head`; where all are, nothing is read."""
    lowest = min((place for place in places if place < Position(head, WHOLE)), default=None)
    if lowest is None:
        return Unread()
    return Unread(await log.newest_places(lowest.revision, lowest.seq, MOST_COUNTED))


def counted(lines: int) -> str:
    """A number of lines that were counted up to the bound, in words."""
    if lines >= MOST_COUNTED:
        return f"{MOST_COUNTED}+ lines"
    return f"{lines} line{'' if lines == 1 else 's'}"
