"""Who may use the slots for deliveries under way: no target can take them all, and each gets its turn. Pure.

A target that fails, hangs or has never answered cannot be told from one that will hang. Together such targets, and
retries to any, hold at most a part of the slots; the rest is for first attempts to targets that answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from universal_registry.propagation.lanes.lane import Breaker, Lane

SLOW_SECONDS = 5.0
"""An attempt that is under way for longer speaks against its target."""


class Standing(IntEnum):
    """What is known of a target, or of an attempt to it: of two, the worse is the higher."""

    PROVEN = 0
    UNKNOWN = 1
    TROUBLED = 2


_WORST_FIRST = tuple(reversed(Standing))


def standing(lane: Lane, oldest: float = 0.0) -> Standing:
    """How a target stands. `oldest`: for how many seconds the longest of its attempts has been under way."""
    if lane.failures or lane.guard.ramp or lane.breaker is not Breaker.CLOSED or oldest > SLOW_SECONDS:
        return Standing.TROUBLED
    return Standing.UNKNOWN if lane.last_success_at is None else Standing.PROVEN


def of_attempt(target: Standing, attempts: int) -> Standing:
    """How an attempt stands: a retry is none of those for which slots are kept free."""
    return max(target, Standing.UNKNOWN) if attempts else target


def allowed(kind: Standing, most: int) -> int:
    """How many of `most` slots attempts that stand so, or worse, may hold together; at least one."""
    match kind:
        case Standing.PROVEN:
            return most
        case Standing.UNKNOWN:
            return max(1, most * 4 // 10)
        case Standing.TROUBLED:
            return max(1, most * 2 // 10)


class Slots:
    """The attempts under way, by how they stood when they began."""

    def __init__(self) -> None:
        self._used = [0, 0, 0]

    @property
    def used(self) -> int:
        """How many are under way."""
        return sum(self._used)

    def admits(self, kind: Standing, most: int) -> bool:
        """Whether one more may begin."""
        used = 0
        for each in _WORST_FIRST:
            used += self._used[each]
            if each <= kind and used >= allowed(each, most):
                return False
        return True

    def begin(self, kind: Standing) -> None:
        """One more is under way."""
        self._used[kind] += 1

    def end(self, kind: Standing) -> None:
        """One less."""
        self._used[kind] -= 1


class Weighed(Protocol):
    """One that takes turns: in each, up to `weight` of what it has may start."""

    @property
    def weight(self) -> int: ...


Turn = TypeVar("Turn", bound=Weighed)


class Turns(Generic[Turn]):
    """Deficit round robin: over time each that has enough to do gets a part like its weight, whether slots come free
    in a bunch or one by one.

    Those that wait stand in one line for each standing, with the number at which they came to its end: the smallest is
    next. So a line for which there is no slot is passed over whole, however long it is, and nobody in it loses a place.
    """

    def __init__(self) -> None:
        self._lines: tuple[OrderedDict[Turn, int], ...] = tuple(OrderedDict() for _ in Standing)
        self._kinds: dict[Turn, Standing] = {}
        self._last = 0
        self._first: Turn | None = None
        self._left = 0

    def join(self, each: Turn, kind: Standing) -> None:
        """It has something to do, and stands so. One that is in line keeps its place, unless it stands otherwise."""
        if (stood := self._kinds.get(each)) is kind:
            return
        if stood is not None:
            del self._lines[stood][each]
        self._kinds[each] = kind
        self._last += 1
        self._lines[kind][each] = self._last

    def share(self, start: Callable[[Turn], bool], room: Callable[[Standing], bool]) -> list[Turn]:
        """Start as much as there is room for. `start` begins one attempt, or says that there is none that may begin:
        those that could not are out of the line, and returned."""
        passed: list[Turn] = []
        while (line := self._next(room)) is not None:
            each = next(iter(line))
            if each is not self._first or self._left <= 0:
                self._first, self._left = each, each.weight
            if not start(each):
                del line[each], self._kinds[each]
                self._left = 0
                passed.append(each)
            elif self._left == 1:
                self._last, self._left = self._last + 1, 0
                line[each] = self._last
                line.move_to_end(each)
            else:
                self._left -= 1
        return passed

    def _next(self, room: Callable[[Standing], bool]) -> OrderedDict[Turn, int] | None:
        found, lowest = None, self._last + 1
        for kind, line in zip(Standing, self._lines, strict=True):
            if line and (number := next(iter(line.values()))) < lowest and room(kind):
                found, lowest = line, number
        return found
