"""Who still reads what of the change log: compaction keeps it for them (registry/retention.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from universal_registry.observe.figures import WatchFigures
from universal_registry.propagation.lanes.lane import Lane
from universal_registry.propagation.ports import LaneQueries, LaneStore, Unsent
from universal_registry.registry.consumers import Consumer
from universal_registry.registry.ports import LogReader
from universal_registry.registry.retention import Reader


class Lanes(LaneStore, LaneQueries, Protocol):
    """The propagation store."""


async def readers(
    log: LogReader,
    lanes: Lanes,
    consumers: Callable[[], Awaitable[Sequence[Consumer]]],
    watches: Callable[[], WatchFigures],
) -> list[Reader]:
    """Targets, with what is still to be sent to them: the log waits for these. Deliveries that were given up, named
    consumers, and the watches of this process."""
    incarnation = (await log.head()).incarnation
    unsent = await lanes.unsent()
    found = []
    for lane in await lanes.lanes():
        if lane.incarnation == incarnation:
            found += _of_lane(lane, unsent.get(lane.lane_id, Unsent(None, None)))
    for consumer in await consumers():
        if consumer.place.incarnation == incarnation:
            found.append(Reader(f"consumer {consumer.name}", consumer.place.revision))
    if (slowest := watches().slowest) is not None:
        found.append(Reader("an open watch", slowest))
    return found


def _of_lane(lane: Lane, unsent: Unsent) -> list[Reader]:
    name = f"target {lane.target_namespace}/{lane.target_name}"
    read = lane.position.whole if unsent.live is None else min(lane.position.whole, unsent.live - 1)
    found = [Reader(name, read, lasting=True)]
    if unsent.dead is not None:
        found.append(Reader(f"deliveries to {name} that were given up", unsent.dead - 1))
    return found
