"""Lanes that have read the log to the same place go on as one: a pass over the log moves them all, however many.

So what a line costs depends on the lanes that it is for, and not on those that there are.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from universal_registry.propagation.lanes.lane import Mark, Position

if TYPE_CHECKING:
    from universal_registry.propagation.engine.window import LaneRun


class Pack:
    """`mark`: how far all its lanes have been planned; a lane of its own may be at the line behind it already.
    `runs`: they, by address. None of them is in a backfill."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.runs: dict[str, LaneRun] = {}

    def take(self, run: LaneRun) -> None:
        """The lane, which stands at the same place, goes on with this pack."""
        self.runs[run.address] = run
        run.join(self)


class Packs:
    """All packs, by their place; of two at the same one has no lanes left, and is forgotten."""

    def __init__(self) -> None:
        self._at: dict[Position, Pack] = {}
        self._moving: Pack | None = None

    def take(self, run: LaneRun) -> None:
        """A lane that stood alone goes on with those at its place."""
        place = run.scanned.position
        if place not in self._at:
            self._at[place] = Pack(run.scanned)
        self._at[place].take(run)

    def places(self) -> Counter[Position]:
        """How many lanes stand at each place."""
        found = Counter({place: len(pack.runs) for place, pack in self._at.items()})
        if self._moving is not None:
            found[self._moving.mark.position] += len(self._moving.runs)
        return found

    def before(self, end: Position) -> deque[Pack]:
        """Those that have not come as far as `end`, the last first. Packs without lanes are dropped."""
        self._at = {place: pack for place, pack in self._at.items() if pack.runs}
        return deque(self._at[place] for place in sorted(self._at) if place < end)

    def set_out(self, pack: Pack) -> None:
        """The pack is about to move; `arrive` follows."""
        if self._at.get(pack.mark.position) is pack:
            del self._at[pack.mark.position]
        self._moving = pack

    def arrive(self, pack: Pack) -> None:
        """Here it is now: with those that were there before it."""
        self._moving = None
        there = self._at.get(pack.mark.position)
        self._at[pack.mark.position] = pack if there is None else united(there, pack)

    def met(self, pack: Pack, ahead: deque[Pack], line: Position) -> Pack:
        """A pack on its way comes by a line: with it go on those `ahead` that have read all before that line."""
        while ahead and ahead[0].mark.position < line:
            other = ahead.popleft()
            self.set_out(other)
            self._moving = pack = united(pack, other)
        return pack


def united(one: Pack, other: Pack) -> Pack:
    """Both as one, where the further of them is; the smaller joins the larger."""
    few, many = (one, other) if len(one.runs) < len(other.runs) else (other, one)
    many.mark = max(one.mark, other.mark, key=lambda mark: mark.position)
    runs, few.runs = few.runs, {}
    for run in runs.values():
        many.take(run)
    return many
