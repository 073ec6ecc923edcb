"""`ureg status`: what runs, what waits, what failed."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

import click

from universal_registry.cli.command import Example, command, output_option
from universal_registry.cli.grid import escaped, terminal_width
from universal_registry.cli.output import told_in_words, write, write_value
from universal_registry.cli.screen import draw, is_left, on_terminal, screen
from universal_registry.cli.session import Session, note, session
from universal_registry.client.http import daemon_addresses
from universal_registry.kernel.errors import Unreachable
from universal_registry.propagation.views.status_lines import row, status_lines

_EVERY_SECONDS = 1.0


@command(
    "status",
    Example("ureg status"),
    Example("ureg status -w", "again each second, until q or Ctrl-C"),
    Example("ureg status -o json"),
)
@click.option("-w", "--watch", is_flag=True, help="Look again each second; off a terminal, write what has changed.")
@output_option("table", "json", "ndjson", "yaml", "tsv")
def status(watch: bool, output: str) -> None:
    """What there is and how it goes: the store, the daemon, targets, the queue, and what needs somebody."""
    if not watch:
        _write(_look(), output)
        return
    with suppress(KeyboardInterrupt):
        if told_in_words(output) and on_terminal():
            with screen():
                _redraw()
        else:
            _write_changes(output)


def _look() -> dict[str, Any]:
    # Each look connects anew: a daemon may end and another begin, and without one no lock is held between looks.
    with session(drive=False, forgiving=True) as asked:
        home = asked.elsewhere.url if asked.elsewhere else str(asked.settings.home)
        return {"home": home, "daemon": _daemon(asked), **asked.read("/v1/-/status")}


def _write(found: dict[str, Any], output: str) -> None:
    if not told_in_words(output):
        write_value(found, output)
        return
    for line in _lines(found):
        write(line)


def _redraw() -> None:
    while True:
        try:
            lines = _lines(_look())
        except Unreachable as error:  # a daemon that is on its way out, or in
            lines = [escaped(str(error))]
        draw(lines)
        if is_left(_EVERY_SECONDS):
            return


def _write_changes(output: str) -> None:
    before: dict[str, Any] | str | None = None
    while True:
        now: dict[str, Any] | str
        try:
            now = _look()
        except Unreachable as error:
            now = str(error)
        if now != before:
            note(now) if isinstance(now, str) else _write(now, output)
            sys.stdout.flush()
            before = now
        time.sleep(_EVERY_SECONDS)


def _daemon(asked: Session) -> dict[str, Any] | None:
    """Who answers; None when no daemon runs. `address` is None for one that holds the store but does not answer;
    `addresses` are all that it listens on."""
    from universal_registry.storage.lock import read_holder

    if asked.elsewhere is not None:
        return {"pid": None, "address": asked.daemon, "addresses": [asked.daemon]}
    holder = read_holder(asked.places.lock)
    if asked.daemon is None and (holder is None or holder.role != "daemon"):
        return None
    listens = list(daemon_addresses(asked.places)) if asked.daemon else []
    return {"pid": holder.pid if holder else None, "address": asked.daemon, "addresses": listens}


def _lines(found: dict[str, Any]) -> list[str]:
    here = [row("home", found["home"]), row("daemon", _daemon_text(found["daemon"]))]
    return here + status_lines(found, terminal_width())


def _daemon_text(daemon: dict[str, Any] | None) -> str:
    if daemon is None:
        return "not running (ureg up)"
    pid = f"pid {daemon['pid']}" if daemon["pid"] else "running"
    return f"{pid}, {', '.join(daemon['addresses']) or 'does not answer'}"
