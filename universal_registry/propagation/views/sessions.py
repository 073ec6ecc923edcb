"""Sessions as people see them: standing ones follow from routes and lanes, one-shot ones from their event lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from universal_registry.kernel.errors import NotFound
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.log.change import Change, Op
from universal_registry.propagation.lanes.lane import (
    FINAL,
    LIVE_STATES,
    WHOLE,
    Delivery,
    DeliveryState,
    Keep,
    Position,
    Session,
    ending,
)
from universal_registry.propagation.ports import LaneQueries, SessionStore
from universal_registry.propagation.routing.counterparts import overall, side_of
from universal_registry.propagation.routing.modes import MODES
from universal_registry.propagation.routing.plan import Event, event_of
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.routing.session_gate import Gate
from universal_registry.propagation.views.carried import Carried
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.propagation.views.plain import delivery_view, moment_text
from universal_registry.registry.service import RegistryService

_ROWS = 1000
_PAGE = 500
_SHOWN = (*LIVE_STATES, DeliveryState.DEAD, DeliveryState.CANCELLED)


class Store(LaneQueries, SessionStore, Protocol):
    """The part of the propagation store that sessions are read from."""


async def all_sessions(service: RegistryService, store: Store, inventory: Inventory) -> list[dict[str, Any]]:
    """Each session without its deliveries, standing ones first; of those that have ended, the one-shot ones."""
    gate = await gate_of(service)
    head = (await service.log.head()).revision
    carried = Carried(service, store, inventory)
    found = []
    for route in inventory.table.routes:
        rows = await store.deliveries(session_id=route.uid, states=_SHOWN, limit=_ROWS)
        others = await carried.by_others(route)
        found.append(_standing(inventory, route, head, rows, others, gate))
    for session in await store.sessions():
        if not session.standing:
            rows = await store.deliveries(session_id=session.session_id, states=_SHOWN, limit=_ROWS)
            found.append(_one_shot(inventory, session, rows, gate))
    return found


async def one_session(service: RegistryService, store: Store, inventory: Inventory, session_id: str) -> dict[str, Any]:
    """A session with its deliveries that have not arrived, and its steps so far. Raises NotFound."""
    rows = await store.deliveries(session_id=session_id, states=_SHOWN, limit=_ROWS)
    gate = await gate_of(service, session_id)
    route = inventory.table.by_uid.get(session_id)
    if route is not None:
        others = await Carried(service, store, inventory).by_others(route)
        found = _standing(inventory, route, (await service.log.head()).revision, rows, others, gate)
        rows = [*rows, *(row for carried in others.values() for row in carried)]
    else:
        stored = await store.sessions(session_id)
        session = stored[0] if stored else await _unplanned(service, inventory, session_id)
        found = _one_shot(inventory, session, rows, gate)
    steps = await store.transitions(session_id)
    return {
        **found,
        "deliveries": [delivery_view(inventory, row) for row in rows],
        "steps": [
            {"at": moment_text(each.at), "from": each.before, "to": each.state, "reason": each.reason} for each in steps
        ],
    }


async def gate_of(service: RegistryService, session_id: str | None = None) -> Gate:
    """What was said about one session, or about all."""
    if session_id is None:
        lines: Sequence[Change] = await service.log.lines_of_kind(ROUTE_KIND, SYSTEM_NAMESPACE)
    else:
        lines = list(reversed(await service.log.history(control_key(session_id), _PAGE)))
    gate = Gate()
    for line in lines:
        gate.follow(line)
    return gate


def control_key(session_id: str) -> Key:
    """Under which the lines stand that say something about the session."""
    return Key(ROUTE_KIND, SYSTEM_NAMESPACE, session_id)


def _standing(
    inventory: Inventory,
    route: Route,
    head: int,
    rows: Sequence[Delivery],
    others: Mapping[str, Sequence[Delivery]],
    gate: Gate,
) -> dict[str, Any]:
    """In sync: each lane has read all of the log, nothing waits. Degraded: something waits, is held or was given up; it
    may be that another session carries it (`others`, by target)."""
    targets = [{**side_of(address, route.selector, inventory.counterparts), **_counts(())} for address in route.peers]
    mine = _by_address(inventory, rows)
    paused = gate.paused.get(route.uid, "")
    for address in route.targets:
        lane, held = inventory.lane(address), inventory.held(address)
        read = lane is not None and lane.backfill is None and inventory.position(lane) >= Position(head, WHOLE)
        held = held or paused
        undone = [*mine.get(address, ()), *others.get(address, ())]
        targets.append(_target(inventory, address, undone, held, "in_sync" if read and not held else "syncing"))
    _stopped(targets, mine)
    states = [str(each["state"]) for each in targets]
    state = "in_sync" if set(states) <= {"in_sync"} else "syncing"
    if route.peers:
        state = overall(states)
    elif {"waiting", "held", "dead"} & set(states):
        state = "degraded"
    return {
        "session": route.uid,
        "standing": True,
        "mode": route.mode,
        "source": route.source,
        "route": route.name,
        "state": "paused" if paused else state,
        "reason": paused,
        "revision": route.revision,
        "created_at": route.created_at,
        "last_activity": moment_text(max((row.updated_at for row in rows), default=None)),
        "deadline": None,
        "replay_of": None,
        "targets": targets,
        "counts": dict(Counter(states)),
    }


def _one_shot(inventory: Inventory, session: Session, rows: Sequence[Delivery], gate: Gate) -> dict[str, Any]:
    """The state is what its targets say, unless somebody has stopped it."""
    targets, mine = [], _by_address(inventory, rows)
    paused, ended = gate.paused.get(session.session_id, ""), gate.ended.get(session.session_id, "")
    for address in session.targets:
        if address in session.gone:
            targets.append({"target": address, "state": "cancelled", "reason": "it was removed", **_counts(())})
            continue
        lane, held = inventory.lane(address), inventory.held(address)
        repeating = lane is not None and lane.backfill is not None and lane.backfill.route_uid == session.session_id
        passed = lane is not None and not repeating and inventory.position(lane) >= Position(session.revision, 0)
        if session.state == "succeeded":
            held, read = "", "delivered"
        elif passed:
            read = "delivered"
        else:
            read = "cancelled" if ended or session.state in FINAL or session.standing else "waiting"
        targets.append(_target(inventory, address, mine.get(address, ()), held or paused, read))
    _stopped(targets, mine)
    states = [str(each["state"]) for each in targets]
    replay = gate.replays.get(session.session_id)
    return {
        "session": session.session_id,
        "standing": session.standing,
        "mode": session.mode,
        "source": session.source,
        "route": None,
        "state": _overall(session, states, paused, ended),
        "reason": session.reason or paused or ended,
        "revision": session.revision,
        "created_at": moment_text(session.created_at),
        "last_activity": moment_text(session.last_activity),
        "deadline": moment_text(session.deadline),
        "replay_of": replay.of if replay else None,
        "targets": targets,
        "counts": dict(Counter(states)),
    }


def _by_address(inventory: Inventory, rows: Sequence[Delivery]) -> dict[str, list[Delivery]]:
    addresses = {lane.lane_id: f"{lane.target_namespace}/{lane.target_name}" for lane in inventory.lanes.values()}
    found: dict[str, list[Delivery]] = {}
    for row in rows:
        found.setdefault(addresses.get(row.lane_id, ""), []).append(row)
    return found


def _target(inventory: Inventory, address: str, rows: Sequence[Delivery], held: str, read: str) -> dict[str, Any]:
    """State and reason of one target; `read`: what it is without rows. What was delivered stays so, held or not."""
    live = [row for row in rows if row.state in LIVE_STATES]
    state, reason = read, ""
    if (live or read in ("syncing", "waiting")) and held:
        state, reason = "held", held
    elif live:
        state, reason = "held" if live[0].keep else "waiting", inventory.stands(live[0])[0]
    elif dead := [row for row in rows if row.state is DeliveryState.DEAD]:
        state, reason = "dead", dead[0].reason
    elif read == "delivered" and rows:
        state, reason = "cancelled", rows[0].reason
    return {"target": address, "state": state, "reason": reason, **_counts(rows)}


def _stopped(targets: Sequence[dict[str, Any]], mine: Mapping[str, Sequence[Delivery]]) -> None:
    """The hops of a chain that wait behind one that was given up say so."""
    broken: tuple[str, str] | None = None
    for target in targets:
        rows = mine.get(target["target"], ())
        waits = next((row for row in rows if row.keep is Keep.AFTER), None)
        if broken and waits is not None and waits.waits_for is not None and not waits.waits_for.skip:
            name, delivery = broken
            target["reason"] = f"stopped: {name} was given up; to go on: ureg delivery redrive {delivery}"
        dead = next((row for row in rows if row.state is DeliveryState.DEAD), None)
        if dead is not None and broken is None:
            broken = target["target"].removeprefix(f"{SYSTEM_NAMESPACE}/"), dead.delivery_id


def _overall(session: Session, states: Sequence[str], paused: str, ended: str) -> str:
    if session.state in FINAL:
        return session.state
    undone = any(state in ("waiting", "held") for state in states)
    if ended:
        return "draining" if undone else "cancelled"
    if session.state == "draining":
        return session.state
    if undone:
        return "paused" if paused else "running"
    return ending(len(states), states.count("delivered"), states.count("dead"))


def _counts(rows: Sequence[Delivery]) -> dict[str, int]:
    return {
        "queued": sum(row.state in LIVE_STATES for row in rows),
        "failed": sum(row.state is DeliveryState.DEAD for row in rows),
        "cancelled": sum(row.state is DeliveryState.CANCELLED for row in rows),
    }


async def _unplanned(service: RegistryService, inventory: Inventory, session_id: str) -> Session:
    """A one-shot session that no lane has come to yet, from its line: only the log beyond the lanes can hold it."""
    lanes = inventory.lanes.values()
    after = min((inventory.position(lane).revision - 1 for lane in lanes), default=0)
    while lines := await service.log.changes(max(after, 0), _PAGE):
        for line in lines:
            if line.op is Op.EVENT and (event := event_of(line)).session == session_id and event.audience:
                return _session_of(line, event)
        after = lines[-1].revision
    raise NotFound(f"there is no session {session_id!r:.80}", hint="see: ureg session ls")


def _session_of(line: Change, event: Event) -> Session:
    at = datetime.fromisoformat(line.at)
    return Session(
        session_id=event.session,
        mode=event.mode or MODES[0],
        source=str(line.key),
        targets=event.audience,
        standing=False,
        state="planned",
        revision=line.revision,
        created_at=at,
        last_activity=at,
        deadline=datetime.fromisoformat(event.deadline) if event.deadline else None,
    )
