"""`ureg status`: what runs, what waits, what failed."""

from __future__ import annotations

from typing import Any

from universal_registry.cli.command import Example, command, output_option
from universal_registry.cli.grid import escaped
from universal_registry.cli.output import Shape, emit, told_in_words, write, write_value
from universal_registry.cli.session import Session, session
from universal_registry.cli.targets import TARGET_COLUMNS, target_name
from universal_registry.client.http import daemon_addresses
from universal_registry.propagation.routing.unread import counted


@command("status", Example("ureg status"), Example("ureg status -o json"))
@output_option("table", "json", "ndjson", "yaml", "tsv")
def status(output: str) -> None:
    """What there is and how it goes: the store, the daemon, targets, the queue, and what needs somebody."""
    with session(forgiving=True) as asked:
        home = asked.elsewhere.url if asked.elsewhere else str(asked.settings.home)
        found = {"home": home, "daemon": _daemon(asked), **asked.read("/v1/-/status")}
    if not told_in_words(output):
        write_value(found, output)
        return
    _show(found)


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


def _show(found: dict[str, Any]) -> None:
    rows = [
        ("home", found["home"]),
        ("store", f"{found['store']}, revision {found['revision']}"),
        ("records", f"{found['records']} of {len(found['kinds'])} kinds"),
        ("daemon", _daemon_text(found["daemon"])),
        ("queue", _queue_text(found)),
        ("delivered", f"{found['counters']['delivered']}; {found['dead']} given up"),
        ("history", _history_text(found["history"])),
        ("routes", str(found["routes"])),
        ("streams", f"{found['streams']['open']} open; {found['streams']['messages']} messages"),
    ]
    for name, text in rows:
        write(f"{name:<10}{escaped(text)}")
    if found["targets"]:
        write("")
        emit(found["targets"], "table", Shape("targets", TARGET_COLUMNS, target_name))
    for warning in found["warnings"]:
        write(f"warning   {escaped(warning)}")


def _queue_text(found: dict[str, Any]) -> str:
    """What is queued, and how much of the log may hold more."""
    health, unread = found["health"], found["unread"]
    lines = counted(found["unread_lines"])
    more = f"; {unread} revision{'' if unread == 1 else 's'} not read to the end ({lines})" if unread else ""
    return f"{health['queue_depth']} pending, {health['webhooks_pending']} of them webhooks{more}"


def _history_text(history: dict[str, int]) -> str:
    if not history["values"]:
        return "kept whole"
    return f"values from revision {history['values']} on, lines from {history['lines']} on"


def _daemon_text(daemon: dict[str, Any] | None) -> str:
    if daemon is None:
        return "not running (ureg up)"
    pid = f"pid {daemon['pid']}" if daemon["pid"] else "running"
    return f"{pid}, {', '.join(daemon['addresses']) or 'does not answer'}"
