"""Events that a target will not get leave a gap in those of their source, which the next ones declare."""

from __future__ import annotations

from universal_registry.propagation.lane import Delivery, DeliveryState, Lane
from universal_registry.propagation.ports import LaneQueries

_MISSED = (DeliveryState.DEAD, DeliveryState.CANCELLED)


async def gap_before(store: LaneQueries, lane: Lane, delivery: Delivery) -> str:
    """The sequence of the newest event of the same source before this one that was given up or skipped; empty when
    there is none."""
    if not lane.guard.gaps or delivery.op != "event":
        return ""
    missed = await store.deliveries(lane_id=lane.lane_id, key=delivery.key, states=_MISSED)
    before = [row.position for row in missed if row.op == "event" and row.position < delivery.position]
    return f"{max(before).revision:016d}.{max(before).seq:06d}" if before else ""
