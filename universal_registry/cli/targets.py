"""How targets look in tables."""

from __future__ import annotations

from typing import Any

from universal_registry.client.http import quote
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.views.status_lines import TARGET_COLUMNS as TARGET_COLUMNS  # noqa: PLC0414
from universal_registry.propagation.views.status_lines import short_target as short_target  # noqa: PLC0414


def target_name(item: dict[str, Any]) -> str:
    """The name by which commands know it."""
    return short_target(str(item["target"]))


def target_path(name: str) -> str:
    """Where the API has the target."""
    return f"/v1/-/targets/{SYSTEM_NAMESPACE}/{quote(short_target(name))}"
