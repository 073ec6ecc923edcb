"""How targets look in tables."""

from __future__ import annotations

from typing import Any

from universal_registry.cli.output import Column
from universal_registry.client.http import quote
from universal_registry.kernel.ids import SYSTEM_NAMESPACE

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


def target_name(item: dict[str, Any]) -> str:
    """The name by which commands know it."""
    return short_target(str(item["target"]))


def short_target(address: str) -> str:
    """A target's name without the namespace that all targets are in."""
    return address.removeprefix(f"{SYSTEM_NAMESPACE}/")


def target_path(name: str) -> str:
    """Where the API has the target."""
    return f"/v1/-/targets/{SYSTEM_NAMESPACE}/{quote(short_target(name))}"
