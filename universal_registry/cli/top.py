"""`ureg top`: how it goes, looked at again and again."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.grid import escaped, terminal_width
from universal_registry.cli.output import write
from universal_registry.cli.screen import draw, is_left, on_terminal, screen
from universal_registry.cli.session import session
from universal_registry.cli.targets import target_name
from universal_registry.kernel.grid import cell, table
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.routing.unread import counted

_TITLES = ("TARGET", "STATE", "BREAKER", "QUEUED", "UNREAD", "DEAD", "DELIVERED", "PER S", "REASON")
_COUNTED = ("delivered", "retried", "failed")


class Look(NamedTuple):
    """What was seen at a moment. `at`: monotonic seconds."""

    at: float
    daemon: bool
    status: dict[str, Any]
    sessions: list[dict[str, Any]]


@command("top", Example("ureg top", "until q or Ctrl-C"), Example("ureg top --once", "one look"))
@click.option("--once", is_flag=True, help="One look, and end; so it is also without a terminal.")
@click.option(
    "--every", type=click.FloatRange(0.5, 3600), default=2.0, metavar="SECONDS", help="How often to look; 2 if absent."
)
def top(once: bool, every: float) -> None:
    """Watch how it goes: revisions and deliveries a second, sessions, and each target and its lane, those behind first.

    Ends with `q` or Ctrl-C; any other key looks at once. For programs there is `ureg status -o json`.
    """
    if once or not on_terminal():
        for line in frame(_look(), None):
            write(line)
        return
    try:
        with screen():
            _go_on(every)
    except KeyboardInterrupt:
        return


def _go_on(every: float) -> None:
    before = None
    while True:
        now = _look()
        draw(frame(now, before))
        before = now
        if is_left(every):
            return


def _look() -> Look:
    # Each look connects anew: a daemon may end and another begin, and without one no lock is held between looks.
    with session(drive=False) as asked:
        status, sessions = asked.read("/v1/-/status"), asked.read("/v1/-/sessions")["items"]
        return Look(SystemWorld().monotonic(), asked.daemon is not None, status, sessions)


def frame(now: Look, before: Look | None) -> list[str]:
    """The lines of one look; with a look `before`, also what happened a second since then."""
    status = now.status
    daemon = "" if now.daemon else "   no daemon runs (ureg up)"
    counters = [f"revision {status['revision']}{_rate(now, before, 'revision')}"]
    counters += [f"{name} {status['counters'][name]}{_rate(now, before, 'counters', name)}" for name in _COUNTED]
    states = Counter(each["state"] for each in now.sessions)
    sessions = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(states.items())) or "none"
    unread = counted(status["unread_lines"])
    lines = [
        f"{status['store']}, {status['records']} records{daemon}",
        "   ".join(counters),
        "   ".join((f"queue {status['health']['queue_depth']}", f"given up {status['dead']}", f"unread {unread}")),
        f"sessions: {sessions}",
        *(f"warning: {each}" for each in status["warnings"]),
    ]
    lines = [escaped(line) for line in lines]
    if status["targets"]:
        earlier = {each["uid"]: each for each in before.status["targets"]} if before else {}
        seconds = now.at - before.at if before else 0.0
        rows = [_row(each, earlier.get(each["uid"]), seconds) for each in sorted(status["targets"], key=_behind)]
        lines += ["", *table(_TITLES, rows, terminal_width(), {0})]
    return lines


def _behind(target: dict[str, Any]) -> tuple[int, str]:
    """Sorts by what a target still has to get, most first."""
    lane, drift = target["lane"] or {}, target["drift"] or {}
    return -(lane.get("queued", 0) + lane.get("dead", 0) + drift.get("unread_lines", 0)), target["target"]


def _row(target: dict[str, Any], earlier: dict[str, Any] | None, seconds: float) -> list[str]:
    lane, drift = target["lane"] or {}, target["drift"] or {}
    was = (earlier or {}).get("lane") or {}
    done = lane.get("delivered", 0)
    rate = f"{max(0, done - was.get('delivered', 0)) / seconds:.1f}" if earlier and seconds else None
    figures = (lane.get("queued"), drift.get("unread_lines"), lane.get("dead"), done, rate)
    return [
        cell(target_name(target)),
        cell(target["state"]),
        cell(lane.get("breaker")),
        *map(cell, figures),
        cell(target["reason"] or lane.get("last_error")),
    ]


def _rate(now: Look, before: Look | None, *path: str) -> str:
    """By how much a counter has grown a second. One that begins anew, with a new daemon, has not shrunk."""
    if before is None or now.at <= before.at:
        return ""
    new: Any = now.status
    old: Any = before.status
    for step in path:
        new, old = new[step], old[step]
    return f" (+{max(0, new - old) / (now.at - before.at):.1f}/s)"
