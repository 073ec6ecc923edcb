"""One delivery as people see it: as it stands, what was tried, and why it is where it is. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.kernel.errors import NotFound
from universal_registry.propagation.lanes.lane import LIVE_STATES, Attempt, Delivery
from universal_registry.propagation.ports import LaneQueries
from universal_registry.propagation.views.explain import explain_delivery
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.propagation.views.plain import attempt_view, delivery_view
from universal_registry.registry.words import shown


async def one_delivery(store: LaneQueries, inventory: Inventory, delivery_id: str) -> dict[str, Any]:
    """The delivery, and its `failed_attempts`. Raises NotFound for one that has no row."""
    row, attempts = await _row(store, delivery_id)
    return {**delivery_view(inventory, row), "failed_attempts": [attempt_view(each) for each in attempts]}


async def why_delivery(store: LaneQueries, inventory: Inventory, delivery_id: str) -> dict[str, Any]:
    """Why it is where it is (see `explain_delivery`). Raises NotFound for one that has no row."""
    row, attempts = await _row(store, delivery_id)
    before = await store.deliveries(lane_id=row.lane_id, key=row.key, states=LIVE_STATES)
    return explain_delivery(inventory, row, attempts, before)


async def failed_attempts(store: LaneQueries, delivery_id: str) -> list[dict[str, Any]]:
    """The attempts that did not succeed, oldest first; also of one that arrived later. Raises NotFound."""
    found = await store.attempts(delivery_id)
    if not found and await store.delivery(delivery_id) is None:
        hint = "`ureg delivery ls` lists those that have not arrived"
        raise NotFound(f"there is no delivery {shown(delivery_id)} that waits or failed", hint=hint)
    return [attempt_view(attempt) for attempt in found]


async def _row(store: LaneQueries, delivery_id: str) -> tuple[Delivery, Sequence[Attempt]]:
    row = await store.delivery(delivery_id)
    attempts = await store.attempts(delivery_id)
    if row is None:
        tried = f"; it arrived after {len(attempts)} failed attempts" if attempts else ""
        hint = "see: ureg where NAME" if attempts else "`ureg delivery ls` lists those that wait"
        raise NotFound(f"delivery {shown(delivery_id)} does not wait and was not given up{tried}", hint=hint)
    return row, attempts
