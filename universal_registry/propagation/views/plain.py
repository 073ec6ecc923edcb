"""Targets, routes, lanes and deliveries as plain data for people and machines. Times: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from universal_registry.propagation.lanes import retry_budget
from universal_registry.propagation.lanes.lane import WHOLE, Attempt, Delivery, Lane
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.routing.target import Signing
from universal_registry.propagation.views.inventory import Inventory


def moment_text(moment: datetime | None) -> str | None:
    """A moment as text; None stays None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def target_view(inventory: Inventory, address: str) -> dict[str, Any]:
    """A target with the state of its lane. `state`: ready | held | paused; `reason` says why it is not ready, or why
    retries wait though it is."""
    target, record = inventory.targets[address], inventory.records[address]
    held = inventory.held(address)
    delivery = record.spec.get("delivery") or {}
    return {
        "target": address,
        "namespace": target.namespace,
        "name": target.name,
        "uid": target.uid,
        "revision": target.revision,
        "url": target.url,
        "transport": target.transport,
        "network": target.network.value,
        "format": target.format,
        "format_version": target.format_version,
        "signed": "secret" in delivery or target.signing is not Signing.HMAC,
        "signing": target.signing.value,
        "secret_overlap_until": moment_text(target.previous_secret_until),
        "seal": target.seal.value,
        "seal_key": "seal_key" in delivery,
        "seal_key_overlap_until": moment_text(target.previous_seal_key_until),
        "insecure_http": target.insecure_http,
        "order": target.traffic.order.value,
        "delivery": target.traffic.revisions.value,
        "rejected": target.traffic.rejected.value,
        "rate": target.traffic.rate,
        "weight": target.traffic.weight,
        "in_flight": target.in_flight,
        "validated_at": target.validated_at or None,
        "state": ("paused" if held == "paused" else "held") if held else "ready",
        "reason": held or inventory.slowed(address),
        "routes": [route.name for route in inventory.table.by_target.get(address, ())],
        "drift": drift_view(inventory, address),
        "lane": lane_view(inventory, lane) if (lane := inventory.lane(address)) else None,
    }


def drift_view(inventory: Inventory, address: str) -> dict[str, Any]:
    """How far a target is from what it is to have: deliveries that wait, that were given up, and revisions that nobody
    has looked at for it to their end, with the lines of them (as `Unread` counts them)."""
    lane = inventory.lane(address)
    routed = bool(inventory.table.by_target.get(address))
    unread = 0
    if routed:
        unread = max(0, inventory.head - inventory.place(address).whole)
    waiting, dead = (lane.rows, lane.dead) if lane else (0, 0)
    backfill = lane is not None and lane.backfill is not None
    return {
        "in_sync": not (waiting or dead or unread or backfill),
        "waiting": waiting,
        "given_up": dead,
        "unread": unread,
        "unread_lines": inventory.unread.behind(inventory.place(address)) if unread else 0,
    }


def lane_view(inventory: Inventory, lane: Lane) -> dict[str, Any]:
    """A lane's durable state. `position`: the revision it is past, or "revision.seq" inside one."""
    position = inventory.position(lane)
    return {
        "lane": lane.lane_id,
        "position": str(position.revision) if position.seq == WHOLE else f"{position.revision}.{position.seq}",
        "backfill": lane.backfill is not None,
        "breaker": lane.breaker.value,
        "failures": lane.failures,
        "open_until": moment_text(lane.open_until),
        "pause_until": moment_text(lane.pause_until),
        "hold": lane.guard.hold.value,
        "paused": lane.paused,
        "by": lane.guard.opened_by or lane.guard.by,
        "slow_start": lane.guard.ramp or None,
        "retry_budget": budget_view(inventory, lane),
        "failing_since": moment_text(lane.guard.failing_since),
        "disabled_soon": lane.guard.noticed_at is not None and not lane.held,
        "superseded": lane.guard.superseded,
        "queued": lane.rows,
        "dead": lane.dead,
        "delivered": lane.delivered,
        "last_success_at": moment_text(lane.last_success_at),
        "last_failure_at": moment_text(lane.last_failure_at),
        "last_error": lane.last_error,
    }


def budget_view(inventory: Inventory, lane: Lane) -> dict[str, Any]:
    """What failed retries may still cost a lane's target. `next_at`: when one is tried again, where nothing is left."""
    left = retry_budget.left(lane.guard, inventory.retry, inventory.now)
    again = retry_budget.retry_at(lane.guard, inventory.retry, inventory.now)
    next_at = moment_text(again) if again > inventory.now else None
    return {"left": round(left, 1), "most": inventory.retry.budget, "next_at": next_at}


def route_view(route: Route) -> dict[str, Any]:
    """A route in force; `session` is its standing session."""
    return {
        "route": route.name,
        "session": route.uid,
        "revision": route.revision,
        "mode": route.mode,
        "source": route.source,
        "selector": msgspec.json.decode(msgspec.json.encode(route.selector)),
        "filter": route.filter.text,
        "targets": list(route.targets or route.peers),
        "exclude": list(route.audience.exclude),
        "follow": route.follow,
        "on_failure": ("skip" if route.skips else "stop") if route.after else None,
        "secrets": "include" if route.secrets_included else "redact",
    }


def delivery_view(inventory: Inventory, delivery: Delivery) -> dict[str, Any]:
    """A delivery row. `reason`, `next_at`: as its target stands now."""
    lane = inventory.lane_of(delivery)
    reason, next_at = inventory.stands(delivery)
    return {
        "delivery": delivery.delivery_id,
        "target": f"{lane.target_namespace}/{lane.target_name}" if lane else None,
        "session": delivery.session_id,
        "op": delivery.op,
        "key": str(delivery.key),
        "revision": delivery.revision,
        "seq": delivery.seq,
        "state": "held" if delivery.keep else delivery.state.value,
        "held": delivery.keep.value or None,
        "replay_of": delivery.replay_of or None,
        "attempts": delivery.attempts,
        "next_at": moment_text(next_at),
        "reason": reason,
        "created_at": moment_text(delivery.created_at),
        "updated_at": moment_text(delivery.updated_at),
    }


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    """An attempt that did not succeed; `number` counts from 0."""
    return {
        "number": attempt.number,
        "at": moment_text(attempt.at),
        "outcome": attempt.outcome,
        "status": attempt.status,
        "milliseconds": attempt.milliseconds,
        "reason": attempt.reason,
    }
