"""What there is and how it goes, in lines for people."""

from __future__ import annotations

from typing import Any

from universal_registry.kernel.grid import Column, table_of
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.kernel.visible import escaped
from universal_registry.propagation.routing.unread import counted


def short_target(address: str) -> str:
    """A target's name without the namespace that all targets are in."""
    return address.removeprefix(f"{SYSTEM_NAMESPACE}/")


TARGET_COLUMNS = (
    Column("TARGET", lambda item: short_target(item["target"]), whole=True),
    Column("STATE", "state"),
    Column("BREAKER", "lane.breaker"),
    Column("QUEUED", "lane.queued"),
    Column("DEAD", "lane.dead"),
    Column("UNREAD", "drift.unread_lines"),
    Column("DELIVERED", "lane.delivered"),
    Column("URL", "url"),
    Column("REASON", lambda item: item["reason"] or (item["lane"] or {}).get("last_error"), long=True),
)


def row(name: str, text: str) -> str:
    """One line of it."""
    return f"{name:<10}{escaped(text)}"


def status_lines(found: dict[str, Any], limit: int | None) -> list[str]:
    """The answer of `GET /v1/-/status`; the table of targets is fitted to so many columns."""
    lines = [
        row("store", f"{found['store']}, revision {found['revision']}"),
        row("records", f"{found['records']} of {len(found['kinds'])} kinds"),
        row("queue", _queue_text(found)),
        row("delivered", f"{found['counters']['delivered']}; {found['dead']} given up"),
        row("history", _history_text(found["history"])),
        row("routes", str(found["routes"])),
        row("streams", f"{found['streams']['open']} open; {found['streams']['messages']} messages"),
    ]
    if found["targets"]:
        lines += ["", *table_of(found["targets"], TARGET_COLUMNS, limit)]
    return lines + [row("warning", warning) for warning in found["warnings"]]


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
