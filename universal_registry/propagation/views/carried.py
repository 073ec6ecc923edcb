"""What other sessions carry to a target for a session: a line goes there once, for the first route that sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from universal_registry.propagation.lanes.lane import LIVE_STATES, Delivery, DeliveryState
from universal_registry.propagation.ports import LaneQueries
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.registry.record import decode_record
from universal_registry.registry.service import RegistryService

_UNDONE = (*LIVE_STATES, DeliveryState.DEAD)
_MOST = 1000


async def carried_by_others(
    service: RegistryService, store: LaneQueries, inventory: Inventory, route: Route
) -> Mapping[str, Sequence[Delivery]]:
    """By target, the deliveries of other standing sessions that have not arrived, and that `route` would send if they
    did not; each with a reason that names the route. Of one other session at most so many are looked at."""
    found: dict[str, list[Delivery]] = {}
    for address in route.targets:
        lane = inventory.lane(address)
        if lane is None or not (lane.rows or lane.dead):
            continue
        for other in inventory.table.to(address):
            if other.uid == route.uid:
                continue
            rows = await store.deliveries(lane_id=lane.lane_id, session_id=other.uid, states=_UNDONE, limit=_MOST)
            wanted = [row for row in rows if await _is_wanted(service, route, row)]
            found.setdefault(address, []).extend(
                replace(row, reason=f"carried by {other.name}: {row.reason}") for row in wanted
            )
    return found


async def _is_wanted(service: RegistryService, route: Route, row: Delivery) -> bool:
    """Whether the route would send the line, too. Of what was there before it, it sends the newest state itself."""
    if row.revision <= route.revision or (route.kinds and row.kind not in route.kinds):
        return False
    line = await service.log.line(row.revision, row.seq)
    if line is None or line.body is None:
        return True  # nobody knows any more what it said, and it has not arrived
    return route.takes(line, decode_record(line.body))
