"""When the clock goes back, what waits for a moment waits too long. This sees it, and says when to move what is stored:
at once, and again when that is stored which was decided before and was on its way. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

_CLOCK_STEP = timedelta(seconds=1)
_COMMITS = 2
"""The one under way, and the next, which takes what was decided meanwhile."""


class Step(NamedTuple):
    """What waits since a later moment is to be moved. `seconds`: how far the clock went back, 0 when told before."""

    seconds: int


class ClockSteps:
    """`now`: of the clock that is watched. `commits`: how many there have been."""

    def __init__(self, now: datetime) -> None:
        self._latest = now
        self._again_at: int | None = None

    def look(self, now: datetime, commits: int, *, unstored: bool) -> Step | None:
        """What follows from the time that it is now. `unstored`: whether anything decided is not stored yet."""
        back = self._latest - now
        self._latest = now
        if back > _CLOCK_STEP:
            self._again_at = commits + _COMMITS if unstored else None
            return Step(round(back.total_seconds()))
        if self._again_at is not None and (commits >= self._again_at or not unstored):
            self._again_at = None
            return Step(0)
        return None
