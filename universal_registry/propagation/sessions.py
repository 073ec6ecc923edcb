"""Sessions as people see them: standing ones follow from routes and lanes, one-shot ones from their event lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from universal_registry.kernel.errors import NotFound
from universal_registry.log.change import Change, Op
from universal_registry.propagation.inventory import Inventory
from universal_registry.propagation.lane import LIVE_STATES, WHOLE, Delivery, DeliveryState, Position, Session
from universal_registry.propagation.plan import Event, event_of
from universal_registry.propagation.ports import LaneQueries
from universal_registry.propagation.route import MODES, Route
from universal_registry.propagation.views import delivery_view, moment_text
from universal_registry.registry.service import RegistryService

_ROWS = 1000
_PAGE = 500


async def all_sessions(service: RegistryService, queries: LaneQueries, inventory: Inventory) -> list[dict[str, Any]]:
    """Each session without its deliveries, standing ones first."""
    head = (await service.log.head()).revision
    standing = [
        _standing(inventory, route, head, await queries.deliveries(session_id=route.uid, states=_OPEN, limit=_ROWS))
        for route in inventory.table.routes
    ]
    stored = [each for each in await queries.sessions() if not each.standing]
    return standing + [
        _one_shot(inventory, each, await queries.deliveries(session_id=each.session_id, states=_OPEN, limit=_ROWS))
        for each in stored
    ]


async def one_session(
    service: RegistryService, queries: LaneQueries, inventory: Inventory, session_id: str
) -> dict[str, Any]:
    """A session with its open and dead deliveries. Raises NotFound."""
    rows = await queries.deliveries(session_id=session_id, states=_OPEN, limit=_ROWS)
    route = inventory.table.by_uid.get(session_id)
    if route is not None:
        found = _standing(inventory, route, (await service.log.head()).revision, rows)
    else:
        stored = [each for each in await queries.sessions(session_id) if not each.standing]
        session = stored[0] if stored else await _unplanned(service, inventory, session_id)
        found = _one_shot(inventory, session, rows)
    addresses = {lane.lane_id: f"{lane.target_namespace}/{lane.target_name}" for lane in inventory.lanes.values()}
    return {**found, "deliveries": [delivery_view(row, addresses.get(row.lane_id)) for row in rows]}


_OPEN = (*LIVE_STATES, DeliveryState.DEAD)


def _standing(inventory: Inventory, route: Route, head: int, rows: Sequence[Delivery]) -> dict[str, Any]:
    """In sync: each lane has read all of the log, nothing waits. Degraded: something waits, is held or was given up."""
    targets = []
    for address in route.targets:
        lane, held = inventory.lane(address), inventory.held(address)
        mine = [row for row in rows if lane is not None and row.lane_id == lane.lane_id]
        read = lane is not None and lane.backfill is None and inventory.position(lane) >= Position(head, WHOLE)
        state, reason = _target_state(mine, held, "in_sync" if read and not held else "syncing")
        targets.append({"target": address, "state": state, "reason": reason, **_counts(mine)})
    states = [str(each["state"]) for each in targets]
    overall = "in_sync" if set(states) == {"in_sync"} else "syncing"
    if {"waiting", "held", "dead"} & set(states):
        overall = "degraded"
    return {
        "session": route.uid,
        "standing": True,
        "mode": route.mode,
        "source": route.source,
        "route": route.name,
        "state": overall,
        "revision": route.revision,
        "created_at": route.created_at,
        "last_activity": moment_text(max((row.updated_at for row in rows), default=None)),
        "targets": targets,
        "counts": dict(Counter(states)),
    }


def _one_shot(inventory: Inventory, session: Session, rows: Sequence[Delivery]) -> dict[str, Any]:
    """The state is what its targets say, unless it was cancelled."""
    targets = []
    for address in session.targets:
        lane, held = inventory.lane(address), inventory.held(address)
        mine = [row for row in rows if lane is not None and row.lane_id == lane.lane_id]
        passed = lane is not None and inventory.position(lane) >= Position(session.revision, 0)
        state, reason = _target_state(mine, held, "delivered" if passed else "waiting")
        targets.append({"target": address, "state": state, "reason": reason, **_counts(mine)})
    states = [str(each["state"]) for each in targets]
    return {
        "session": session.session_id,
        "standing": False,
        "mode": session.mode,
        "source": session.source,
        "route": None,
        "state": "cancelled" if session.state == "cancelled" else _overall(states),
        "revision": session.revision,
        "created_at": moment_text(session.created_at),
        "last_activity": moment_text(session.last_activity),
        "targets": targets,
        "counts": dict(Counter(states)),
    }


def _target_state(rows: Sequence[Delivery], held: str, read: str) -> tuple[str, str]:
    """State and reason of one target; `read`: what it is without rows. What was delivered stays so, held or not."""
    live = [row for row in rows if row.state in LIVE_STATES]
    if (live or read in ("syncing", "waiting")) and held:
        return "held", held
    if live:
        return "waiting", live[0].reason
    if rows:
        return "dead", rows[0].reason
    return read, ""


def _overall(states: Sequence[str]) -> str:
    if any(state in ("waiting", "held") for state in states):
        return "running"
    if all(state == "delivered" for state in states):
        return "succeeded"
    return "partial" if "delivered" in states else "failed"


def _counts(rows: Sequence[Delivery]) -> dict[str, int]:
    live = sum(row.state in LIVE_STATES for row in rows)
    return {"queued": live, "failed": len(rows) - live}


async def _unplanned(service: RegistryService, inventory: Inventory, session_id: str) -> Session:
    """A one-shot session that no lane has come to yet, from its line: only the log beyond the lanes can hold it."""
    lanes = inventory.lanes.values()
    after = min((inventory.position(lane).revision - 1 for lane in lanes), default=0)
    while lines := await service.log.changes(max(after, 0), _PAGE):
        for line in lines:
            if line.op is Op.EVENT and (event := event_of(line)).session == session_id:
                return _session_of(line, event)
        after = lines[-1].revision
    raise NotFound(f"there is no session {session_id!r:.80}", hint="see: ureg session ls")


def _session_of(line: Change, event: Event) -> Session:
    at = datetime.fromisoformat(line.at)
    return Session(
        session_id=event.session,
        mode=MODES[0],
        source=str(line.key),
        targets=event.audience,
        standing=False,
        state="running",
        revision=line.revision,
        created_at=at,
        last_activity=at,
    )
