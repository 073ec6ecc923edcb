"""Arrival: which revision of a record has reached which target, and why not the newest. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.log.change import Change, Op
from universal_registry.propagation.lanes.lane import LIVE_STATES, Delivery, DeliveryState, Lane, Position
from universal_registry.propagation.ports import LaneQueries
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.routing.session_gate import Replay
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.propagation.views.plain import moment_text
from universal_registry.propagation.views.sessions import gate_of
from universal_registry.registry.record import Record, decode_record
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import RegistryService

_HISTORY = 50


async def arrivals(
    service: RegistryService, queries: LaneQueries, inventory: Inventory, record: Record
) -> list[dict[str, Any]]:
    """One entry per target, in order of address: `target`, `state` (arrived | waiting | held | dead | cancelled |
    not-routed), `wanted_revision`, `arrived_revision` (the newest known to have come, or None), `reason`, `next_at`,
    `route`."""
    chosen: dict[str, Route] = {}
    for route in inventory.table.candidates(record.kind, record.name):
        if route.selector.matches(record):
            for address in route.targets:
                chosen.setdefault(address, route)
    reader = _Reader(service, queries, inventory, record, await _lines(service, record))
    found = []
    for address in sorted({*chosen, *inventory.targets}):
        if address not in chosen:
            found.append(_entry(address, "not-routed", record, reason="no route sends it there"))
            continue
        route = chosen[address]
        begins = await _line_of_route(service, route)
        found.append({**await reader.arrival(route, begins, address), "route": route.name})
    return found


async def _lines(service: RegistryService, record: Record) -> list[Change]:
    """The newest puts of the record, newest first, with the line of its present revision among them."""
    lines = [line for line in await service.log.history(record.key, _HISTORY) if line.op is Op.PUT]
    if lines and lines[0].revision == record.revision:
        return lines
    # Events of this record, or a change since it was read, have pushed the line out of sight.
    revision = await service.log.changes(record.revision - 1, 1, upto=record.revision)
    return [line for line in revision if line.op is Op.PUT and line.key == record.key]


async def _line_of_route(service: RegistryService, route: Route) -> Position:
    """Where the route as it is now stands in the log: lanes stop there for its backfill."""
    lines = await service.log.history(Key(ROUTE_KIND, SYSTEM_NAMESPACE, route.name), 1)
    seq = next((line.seq for line in lines if line.revision == route.revision), 0)
    return Position(route.revision, seq)


class _Reader:
    """Works out where one record has come to. `lines`: its puts, newest first."""

    def __init__(
        self,
        service: RegistryService,
        queries: LaneQueries,
        inventory: Inventory,
        record: Record,
        lines: Sequence[Change],
    ) -> None:
        self._service = service
        self._queries = queries
        self._inventory = inventory
        self._record = record
        self._lines = lines

    async def arrival(self, route: Route, begins: Position, address: str) -> dict[str, Any]:
        """The entry of a target that `route`, whose line stands at `begins`, sends the record to."""
        record, held = self._record, self._inventory.held(address)
        lane = self._inventory.lane(address)
        idle = "held" if held else "waiting"
        if lane is None:
            return _entry(address, idle, record, reason=held or "not planned yet")
        states = (*LIVE_STATES, DeliveryState.DEAD, DeliveryState.CANCELLED)
        passed = self._passed(lane, route, begins)
        found = await self._queries.deliveries(lane_id=lane.lane_id, key=record.key, states=states)
        rows = [row for row in found if not self._is_history(row, route, passed)]
        again = await self._sent_again(rows, lane, address)
        rows = [row for row in rows if row.delivery_id not in again]
        came = self._newest_arrived(passed, route, {row.revision for row in rows})
        newest = [row for row in rows if row.revision == record.revision]
        live = [row for row in newest if row.state in LIVE_STATES]
        if live:
            why, next_at = self._inventory.stands(live[0])
            reason = held or why or "on its way"
            return _entry(address, "held" if live[0].keep else idle, record, came, reason, next_at)
        if not (passed and self._place(record.revision) <= passed):
            return _entry(address, idle, record, came, held or "not sent yet")
        if newest:
            return _entry(address, newest[0].state.value, record, came, newest[0].reason)
        return _entry(address, "arrived", record, record.revision)

    def _passed(self, lane: Lane, route: Route, begins: Position) -> Position | None:
        """How far the lane has come; None before it is past the route's own line, backfill included."""
        position = self._inventory.position(lane)
        backfilling = lane.backfill is not None and lane.backfill.route_uid in ("", route.uid)
        return None if backfilling or position < begins else position

    def _is_history(self, row: Delivery, route: Route, passed: Position | None) -> bool:
        """What was cancelled with another session is done by this route when the lane has come to the end."""
        others = row.state is DeliveryState.CANCELLED and row.route_uid not in ("", route.uid)
        return others and passed is not None and passed.revision >= self._inventory.head

    async def _sent_again(self, rows: Sequence[Delivery], lane: Lane, address: str) -> set[str]:
        """Those of the rows of its present revision that ended without it, and that a replay has brought since: of
        what a replay has done no row is left, and nothing else of its session may stand here."""
        ended = [row for row in rows if row.revision == self._record.revision and row.state not in LIVE_STATES]
        if not ended:
            return set()
        gate, sessions = await gate_of(self._service), {row.session_id for row in rows}
        done = [
            replay
            for replay in gate.replays.values()
            if address in replay.targets
            and replay.session_id not in (*sessions, *gate.ended)
            and self._inventory.position(lane) >= replay.begins
            and (lane.backfill is None or lane.backfill.route_uid != replay.session_id)
            and self._is_in(replay)
        ]
        return {row.delivery_id for row in ended if any(replay.of == row.session_id for replay in done)}

    def _is_in(self, replay: Replay) -> bool:
        select = parse_selector(replay.select, self._service.catalogue) if replay.select else None
        between = replay.since < self._record.revision < replay.until
        return between and (select is None or select.matches(self._record))

    def _place(self, revision: int) -> Position:
        return Position(revision, next((line.seq for line in self._lines if line.revision == revision), 0))

    def _newest_arrived(self, passed: Position | None, route: Route, rows: set[int]) -> int | None:
        """The newest revision that lies below the position without a row. Of those older than the route only the
        newest was ever sent, by its backfill."""
        for line in self._lines:
            if passed is None or line.body is None:
                return None
            if (
                line.revision not in rows
                and Position(line.revision, line.seq) <= passed
                and route.selector.matches(decode_record(line.body))
            ):
                return line.revision
            if line.revision < route.revision:
                return None
        return None


def _entry(
    address: str,
    state: str,
    record: Record,
    arrived: int | None = None,
    reason: str = "",
    next_at: datetime | None = None,
) -> dict[str, Any]:
    return {
        "target": address,
        "state": state,
        "wanted_revision": record.revision,
        "arrived_revision": arrived,
        "reason": reason,
        "next_at": moment_text(next_at),
        "route": None,
    }
