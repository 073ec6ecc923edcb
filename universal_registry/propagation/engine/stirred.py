"""Lanes that may have something to do, so that nobody has to walk all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from universal_registry.propagation.engine.window import LaneRun


class Stirred:
    """One that has something in hand is here for certain; whoever finds one that has nothing any more takes it out.

    `sendable`: attempts may be ready, or their standing may have changed; `parked`: rows wait to be stored; `rowed`:
    there are live rows; `alone`: it reads the log for itself, in no pack (see packs.py).
    """

    def __init__(self) -> None:
        self.sendable: dict[LaneRun, None] = {}
        self.parked: dict[LaneRun, None] = {}
        self.rowed: dict[LaneRun, None] = {}
        self.alone: dict[LaneRun, None] = {}

    def forget(self, run: LaneRun) -> None:
        """The lane is no longer at work."""
        run.go_alone(run.scanned)
        for lanes in (self.sendable, self.parked, self.rowed, self.alone):
            lanes.pop(run, None)
