"""Who may use the slots for deliveries under way: no target can take them all, and each gets its turn. Pure.

A target that fails, hangs or has never answered cannot be told from one that will hang. Together such targets, and
retries to any, hold at most a part of the slots; the rest is for first attempts to targets that answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from universal_registry.propagation.lane import Breaker, Lane

SLOW_SECONDS = 5.0
"""An attempt that is under way for longer speaks against its target."""


class Standing(IntEnum):
    """What is known of a target, or of an attempt to it: of two, the worse is the higher."""

    PROVEN = 0
    UNKNOWN = 1
    TROUBLED = 2


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
        return all(sum(self._used[each:]) < allowed(each, most) for each in Standing if each <= kind)

    def begin(self, kind: Standing) -> None:
        """One more is under way."""
        self._used[kind] += 1

    def end(self, kind: Standing) -> None:
        """One less."""
        self._used[kind] -= 1


class Weighed(Protocol):
    """One that takes turns: in each, up to `weight` of what it has may start. `place`: its place in the circle."""

    @property
    def weight(self) -> int: ...

    @property
    def place(self) -> int: ...


Turn = TypeVar("Turn", bound=Weighed)


class Turns(Generic[Turn]):
    """Deficit round robin: over time each that has enough to do gets a part like its weight, whether slots come free
    in a bunch or one by one."""

    def __init__(self) -> None:
        self._place = 0
        self._left = 0

    def share(self, waiting: Iterable[Turn], start: Callable[[Turn], bool], room: Callable[[], bool]) -> None:
        """Start as much as there is room for. `waiting` is in order of place. `start` begins one attempt, or says that
        there is none that may begin."""
        line = self._from_its_turn(waiting)
        while line and room():
            each = line[0]
            if self._left <= 0 or self._place != each.place:
                self._place, self._left = each.place, each.weight
            if not start(each):
                line.popleft()
                self._pass(each)
            elif self._left == 1:
                line.rotate(-1)
                self._pass(each)
            else:
                self._left -= 1

    def _pass(self, each: Turn) -> None:
        self._place, self._left = each.place + 1, 0

    def _from_its_turn(self, waiting: Iterable[Turn]) -> deque[Turn]:
        before: list[Turn] = []
        after: list[Turn] = []
        for each in waiting:
            (after if each.place >= self._place else before).append(each)
        return deque(after + before)
