"""Why a delivery is where it is, and who gets a record and who does not. Pure; reads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.lanes.breaker import may_send
from universal_registry.propagation.lanes.lane import LIVE_STATES, Attempt, Delivery, DeliveryState, Keep, Lane
from universal_registry.propagation.routing.modes import SHAPES
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.propagation.views.plain import attempt_view, budget_view, delivery_view, moment_text
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector

_WORDS = {
    "kinds": "kind",
    "names": "name",
    "classifications": "classification",
    "labels": "labels",
    "not_labels": "labels",
    "fields": "spec",
}


def mismatch(selector: Selector, record: Record) -> str:
    """The first term of a selector that leaves a record out, in words; empty when it is selected."""
    if selector.matches(record):
        return ""
    if selector.namespaces and record.namespace not in selector.namespaces:
        return f"its namespace is {record.namespace}, not {' or '.join(selector.namespaces)}"
    if not selector.namespaces and record.namespace == SYSTEM_NAMESPACE:
        return f"namespace {SYSTEM_NAMESPACE} is meant only where it is named"
    for field, word in _WORDS.items():
        terms = getattr(selector, field)
        alone = Selector(namespaces=(record.namespace,), **{field: terms})
        if terms and not alone.matches(record):
            verb = "are" if word == "labels" else "is"
            return f"its {word} {verb} {_shown(field, record)}, the route asks for {_terms(field, terms)}"
    return "the route asks for something else"


def _shown(field: str, record: Record) -> str:
    shown = {"kinds": record.kind, "names": record.name, "classifications": record.classification}
    return shown.get(field) or (_pairs(record.labels) if field.endswith("labels") else "what it is")


def _pairs(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items()) or "none"


def _terms(field: str, terms: Any) -> str:
    if isinstance(terms, tuple):
        return " or ".join(terms[:5])
    no = "not " if field == "not_labels" else ""
    prefix = "spec." if field == "fields" else ""
    parts = [
        f"{no}{prefix}{key}" if values is None else f"{no}{prefix}{key}={'|'.join(map(str, values))}"
        for key, values in terms.items()
    ]
    return ", ".join(parts)


def explain_record(inventory: Inventory, record: Record) -> dict[str, Any]:
    """Of each target whether it gets the record, by which route, and if not why (`targets`); and of each route whether
    it means the record (`routes`). Of several routes to a target the first carries it."""
    routes = [
        {"route": each.name, "mode": each.mode, "why_not": _route_says(each, record)} for each in inventory.table.routes
    ]
    addresses = sorted({*inventory.targets, *inventory.table.by_target})
    return {
        "kind": record.kind,
        "namespace": record.namespace,
        "name": record.name,
        "revision": record.revision,
        "targets": [_target_says(inventory, address, record) for address in addresses],
        "routes": routes,
    }


def _route_says(route: Route, record: Record) -> str:
    if SHAPES[route.mode].two_way:
        return mismatch(route.selector, record) or "two-way: see ureg session get"
    return mismatch(route.selector, record)


def _target_says(inventory: Inventory, address: str, record: Record) -> dict[str, Any]:
    answer: dict[str, Any] = {"target": address, "gets": False, "route": None, "also": [], "held": "", "why": ""}
    routes = inventory.table.by_target.get(address, ())
    carrying = [route for route in routes if not _route_says(route, record)]
    if carrying:
        first = carrying[0]
        after = [each.removeprefix(f"{SYSTEM_NAMESPACE}/") for each in first.earlier(address)]
        order = f", after {' and '.join(after)}" if after else ""
        return answer | {
            "gets": True,
            "route": first.name,
            "also": [route.name for route in carrying[1:]],
            "held": inventory.held(address),
            "why": f"route {first.name} means it{order}",
        }
    reasons = [f"{route.name}: {_route_says(route, record)}" for route in routes]
    reasons += _left_out(inventory, address, record)
    return answer | {"why": "; ".join(reasons) or "no route goes there"}


def _left_out(inventory: Inventory, address: str, record: Record) -> list[str]:
    """The broadcasts that mean the record and leave the target out."""
    facts = inventory.facts().get(address)
    found = []
    for route in inventory.table.routes:
        if facts is None or not SHAPES[route.mode].everyone or address in route.targets or _route_says(route, record):
            continue
        word = route.audience.left_out(facts)
        found.append(
            f"{route.name}: excluded by {word}" if word else f"{route.name}: it was added after that broadcast"
        )
    return found


# --- one delivery ---------------------------------------------------------------------------------------------------


def explain_delivery(
    inventory: Inventory, row: Delivery, attempts: Sequence[Attempt], before: Sequence[Delivery]
) -> dict[str, Any]:
    """A delivery that has a row: what scheduled it, what it waits for, what was answered last. `before`: the live rows
    of the same record in the same lane."""
    lane = inventory.lane_of(row)
    address = f"{lane.target_namespace}/{lane.target_name}" if lane else None
    route = inventory.table.by_uid.get(row.route_uid)
    last = attempts[-1] if attempts else None
    return {
        **delivery_view(inventory, row),
        "route": route.name if route else None,
        "mode": route.mode if route else None,
        "scheduled": _scheduled(row, route),
        "why": _why(inventory, row, address, before),
        "breaker": None if lane is None else {**_breaker(lane), "says": may_send(lane, inventory.now)},
        "retry_budget": None if lane is None else budget_view(inventory, lane),
        "last": attempt_view(last) if last else None,
    }


def _scheduled(row: Delivery, route: Route | None) -> str:
    what = f"{row.op} of {row.key} in revision {row.revision}"
    if row.replay_of:
        return f"{what}, sent again for session {row.session_id} (first: {row.replay_of})"
    if route is not None:
        return f"{what}, by route {route.name} ({route.mode} of {route.source or 'its selector'})"
    if row.route_uid:
        return f"{what}, by a route that is gone"
    return f"{what}, as an event of session {row.session_id}"


def _why(inventory: Inventory, row: Delivery, address: str | None, before: Sequence[Delivery]) -> list[str]:
    """All that keeps it, the first thing to heal first."""
    if row.state is DeliveryState.DEAD:
        return [f"given up: {row.reason}", f"to try again: ureg delivery redrive {row.delivery_id}"]
    if row.state is DeliveryState.CANCELLED:
        return [f"cancelled: {row.reason}"]
    why = []
    if row.keep is not Keep.NONE:
        why.append(f"held ({row.keep.value}): {row.reason}")
    if address is not None and (held := inventory.held(address)):
        why.append(f"the target: {held}")
    earlier = [each for each in before if each.position < row.position and each.state in LIVE_STATES]
    if earlier:
        why.append(f"it waits behind revision {earlier[0].revision} of the same record ({earlier[0].delivery_id})")
    if row.attempts and address is not None and (slowed := inventory.slowed(address)):
        why.append(f"the target: {slowed}")
    if row.state is DeliveryState.WAITING and row.next_at is not None:
        why.append(f"attempt {row.attempts + 1} is due {_when(row.next_at, inventory.now)}, after: {row.reason}")
    elif row.state is DeliveryState.SENDING:
        why.append("an attempt is under way, or next in turn")
    return why or [row.reason or "it is its turn"]


def _when(at: datetime, now: datetime) -> str:
    seconds = (at - now).total_seconds()
    return f"at {moment_text(at)}" + (f" (in {seconds:.0f} s)" if seconds > 0 else " (now)")


def _breaker(lane: Lane) -> dict[str, Any]:
    return {
        "state": lane.breaker.value,
        "failures": lane.failures,
        "trips": lane.trips,
        "open_until": moment_text(lane.open_until),
        "pause_until": moment_text(lane.pause_until),
    }
