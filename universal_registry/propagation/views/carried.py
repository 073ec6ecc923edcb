"""What other sessions carry to a target for a session: a line goes there once, for the first route that sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from universal_registry.log.change import Change
from universal_registry.propagation.lanes.lane import LIVE_STATES, Delivery, DeliveryState
from universal_registry.propagation.ports import LaneQueries
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.registry.record import Record, decode_record
from universal_registry.registry.service import RegistryService

_UNDONE = (*LIVE_STATES, DeliveryState.DEAD)
_MOST = 1000


class Carried:
    """For one answer: what its sessions have in common is read once, however many of them ask."""

    def __init__(self, service: RegistryService, store: LaneQueries, inventory: Inventory) -> None:
        self._service = service
        self._store = store
        self._inventory = inventory
        self._undone: dict[tuple[str, str], Sequence[Delivery]] = {}
        self._lines: dict[tuple[int, int], tuple[Change, Record] | None] = {}

    async def by_others(self, route: Route) -> Mapping[str, Sequence[Delivery]]:
        """By target, the deliveries of other standing sessions that have not arrived, and that `route` would send if
        they did not; each with a reason that names the route. Of one other session at most so many are looked at."""
        found: dict[str, list[Delivery]] = {}
        for address in route.targets:
            lane = self._inventory.lane(address)
            if lane is None or not (lane.rows or lane.dead):
                continue
            for other in self._inventory.table.to(address):
                if other.uid == route.uid:
                    continue
                wanted = [row for row in await self._rows(lane.lane_id, other.uid) if await self._is_wanted(route, row)]
                found.setdefault(address, []).extend(
                    replace(row, reason=f"carried by {other.name}: {row.reason}") for row in wanted
                )
        return found

    async def _rows(self, lane_id: str, session_id: str) -> Sequence[Delivery]:
        if (lane_id, session_id) not in self._undone:
            self._undone[lane_id, session_id] = await self._store.deliveries(
                lane_id=lane_id, session_id=session_id, states=_UNDONE, limit=_MOST
            )
        return self._undone[lane_id, session_id]

    async def _is_wanted(self, route: Route, row: Delivery) -> bool:
        """Whether the route would send the line, too. Of what was there before it, it sends the newest state itself."""
        if row.revision <= route.revision or (route.kinds and row.kind not in route.kinds):
            return False
        said = await self._said(row)
        return said is None or route.takes(*said)

    async def _said(self, row: Delivery) -> tuple[Change, Record] | None:
        """The line and its record; None: nobody knows any more what it said, and it has not arrived."""
        place = (row.revision, row.seq)
        if place not in self._lines:
            line = await self._service.log.line(*place)
            self._lines[place] = None if line is None or line.body is None else (line, decode_record(line.body))
        return self._lines[place]
