"""How much of the change log may go: what is past its time, and no longer needed by those who read it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from universal_registry.log.horizon import Horizon


class Reader(NamedTuple):
    """Somebody who has read everything up to `revision`. `lasting`: the log waits for him, however long he takes."""

    name: str
    revision: int
    lasting: bool = False


class Limits(NamedTuple):
    """The newest revisions that are past their time: of the values in the log, and of its lines."""

    values: int
    lines: int


class Plan(NamedTuple):
    """Where the horizon is to be. `kept_back`: the readers for whose sake it is not further."""

    values: int
    lines: int
    kept_back: tuple[Reader, ...]


def limit(head: int, past_days: int, revisions: int, old: int) -> int:
    """The newest revision past its time. `past_days`: the newest that is too old (0: none is); `revisions`: how many
    are kept at most (0: all); `old`: the newest that may go at all."""
    beyond = head - revisions if revisions else 0
    return max(0, min(old, max(past_days, beyond)))


def plan(horizon: Horizon, limits: Limits, readers: Iterable[Reader]) -> Plan:
    """The horizon never goes back. Lines go when they are past their time, whoever wants to read them still (he is
    told, and reads everything again), unless a lasting reader does. Values stay for every reader whose lines do."""
    readers = list(readers)
    lines = min([limits.lines, limits.values, *(each.revision for each in readers if each.lasting)])
    lines = max(horizon.lines, lines)
    there = [each for each in readers if each.revision >= lines or each.lasting]
    values = max(horizon.values, lines, min([limits.values, *(each.revision for each in there)]))
    return Plan(values, lines, _kept_back(there, limits, lines))


def _kept_back(there: Sequence[Reader], limits: Limits, lines: int) -> tuple[Reader, ...]:
    waiting = [each for each in there if each.revision < limits.values]
    waiting += [each for each in there if each.lasting and lines <= each.revision < limits.lines]
    return tuple(sorted(dict.fromkeys(waiting), key=lambda each: each.revision))
