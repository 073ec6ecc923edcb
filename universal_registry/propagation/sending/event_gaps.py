"""Events that a target will not get leave a gap in those of their source, which the next ones declare."""

from __future__ import annotations

from universal_registry.propagation.lanes.lane import Delivery, Lane
from universal_registry.propagation.ports import LaneQueries


async def gap_before(store: LaneQueries, lane: Lane, delivery: Delivery) -> str:
    """The sequence of the newest event of the same source before this one that was given up or skipped; empty when
    there is none."""
    if not lane.guard.gaps or delivery.op != "event":
        return ""
    missed = await store.missed_event(lane.lane_id, delivery.key, delivery.position)
    return "" if missed is None else f"{missed.revision:016d}.{missed.seq:06d}"
