"""`ureg session waterfall`: when what was tried for whom, on one axis of time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import click

from universal_registry.cli.command import Command, Example, answer_option
from universal_registry.cli.grid import escaped, terminal_width
from universal_registry.cli.output import told_in_words, write, write_value
from universal_registry.cli.session import session
from universal_registry.cli.targets import short_target
from universal_registry.client.http import quote
from universal_registry.kernel.grid import cut, width

_WIDEST_NAME, _LONGEST_AXIS, _SHORTEST_AXIS, _WORDS = 24, 60, 20, 40
_PLANNED, _FAILED, _UNDER_WAY, _ARRIVED, _WAITS = "|", "x", "█", "●", "─"
_LEGEND = f"{_PLANNED} planned  {_FAILED} failed  {_WAITS} waits  {_UNDER_WAY} on its way  {_ARRIVED} delivered"
_ENDED = ("delivered", "dead", "cancelled")


class Span(NamedTuple):
    """The time that the axis shows."""

    start: datetime
    end: datetime

    def column(self, moment: str, columns: int) -> int:
        """Where a moment stands, from 0; what lies beyond an end stands there."""
        whole = (self.end - self.start).total_seconds()
        part = (datetime.fromisoformat(moment) - self.start).total_seconds() / whole if whole else 0.0
        return round(min(max(part, 0.0), 1.0) * (columns - 1))


@click.command(
    "waterfall",
    cls=Command,
    examples=(Example("ureg session waterfall ID"), Example("ureg session waterfall ID -o json", "with the times")),
)
@click.argument("session_id", metavar="ID")
@answer_option()
def waterfall(session_id: str, output: str) -> None:
    """Show when a session was planned, tried and delivered for each target, on one axis of time.

    Of a standing session what has not arrived is shown, a line for each delivery: what has is not kept one by one.
    """
    with session(drive=False) as asked:
        found = asked.read(f"/v1/-/sessions/{quote(session_id)}/waterfall")
    if not told_in_words(output):
        write_value(found, output)
        return
    for line in lines(found, terminal_width()):
        write(escaped(line))


def lines(found: dict[str, Any], limit: int | None) -> Iterator[str]:
    """The picture, in lines of at most `limit` columns where there is a limit."""
    rows = [(each, delivery) for each in found["targets"] for delivery in each["deliveries"] or [None]]
    names = [cut(short_target(target["target"]), _WIDEST_NAME) for target, _ in rows]
    margin = max(map(width, names), default=0) + 2
    left = _LONGEST_AXIS if limit is None else limit - margin - _WORDS - 2
    columns = min(max(left, _SHORTEST_AXIS), _LONGEST_AXIS)
    span = _span(found)
    yield f"session {found['session']} {found['state'].replace('_', ' ')}: {found['mode']} of {found['source']}"
    for name, (target, delivery) in zip(names, rows, strict=True):
        bar, words = (
            ("", _stands(target)) if delivery is None else (_bar(delivery, span, columns), _said(delivery, found))
        )
        line = f"{name}{' ' * (margin - width(name))}{bar:<{columns}}  {words}"
        yield line if limit is None else cut(line, limit)
    if found["more"]:
        yield f"and {found['more']} more deliveries: ureg delivery ls --session {found['session']}"
    if any(delivery for _, delivery in rows):
        took = _short((span.end - span.start).total_seconds())
        start = span.start.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield f"{' ' * margin}{start}{took:>{max(len(took) + 1, columns - len(start))}}"
        yield _LEGEND


def _span(found: dict[str, Any]) -> Span:
    """From when the first of it was planned until the last had ended, or until now while something is undone."""
    deliveries = [each for target in found["targets"] for each in target["deliveries"]]
    starts = [each["planned_at"] for each in deliveries] or [found["planned_at"]]
    ends = [_ended_at(each) or found["now"] for each in deliveries] or [found["now"]]
    return Span(min(map(datetime.fromisoformat, starts)), max(map(datetime.fromisoformat, [*starts, *ends])))


def _ended_at(delivery: dict[str, Any]) -> str | None:
    """When it was delivered, or given up; None while neither is so."""
    if delivery["arrived_at"] or delivery["state"] not in _ENDED:
        return delivery["arrived_at"] or None
    return str(delivery["attempts"][-1]["ended_at"]) if delivery["attempts"] else None


def _bar(delivery: dict[str, Any], span: Span, columns: int) -> str:
    """What became of a delivery; of two things that fall on one place the later one stands there."""
    cells = [" "] * columns
    ended_at = _ended_at(delivery)
    planned = span.column(delivery["planned_at"], columns)
    end = columns if ended_at is None else span.column(ended_at, columns) + 1
    cells[planned:end] = _WAITS * (end - planned)
    cells[planned] = _PLANNED
    for attempt in delivery["attempts"]:
        cells[span.column(attempt["ended_at"], columns)] = _FAILED
    if delivery["arrived_at"]:
        began, there = (span.column(delivery[each], columns) for each in ("began_at", "arrived_at"))
        cells[began:there] = _UNDER_WAY * (there - began)
        cells[there] = _ARRIVED
    return "".join(cells)


def _said(delivery: dict[str, Any], found: dict[str, Any]) -> str:
    failed = len(delivery["attempts"])
    after = f", after {failed} failed attempt{'' if failed == 1 else 's'}" if failed else ""
    if delivery["arrived_at"]:
        return f"delivered in {_between(delivery['planned_at'], delivery['arrived_at'])}{after}"
    if delivery["next_at"] and delivery["next_at"] > found["now"] and delivery["state"] not in _ENDED:
        return f"attempt {failed + 1} in {_between(found['now'], delivery['next_at'])}{_because(delivery)}"
    return f"{delivery['state']}{after}{_because(delivery)}"


def _stands(target: dict[str, Any]) -> str:
    """Of a target without a delivery to show."""
    return f"{target['state'].replace('_', ' ')}{_because(target)}"


def _because(what: dict[str, Any]) -> str:
    return f": {what['reason']}" if what["reason"] else ""


def _between(start: str, end: str) -> str:
    return _short((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _short(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
