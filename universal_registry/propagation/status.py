"""The state of everything in one answer."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.disabling import notice
from universal_registry.propagation.inventory import UNKNOWN_LAG, EngineView, Inventory
from universal_registry.propagation.ports import LaneStore
from universal_registry.propagation.views import target_view
from universal_registry.registry.service import RegistryService


async def status_of(
    service: RegistryService, store: LaneStore, engine: EngineView, inventory: Inventory, store_name: str
) -> dict[str, Any]:
    """`store`, `revision`, `cursor`, `records`, `kinds` (kind -> records), `targets`, `routes` (how many), `health`
    (the two gauges of the metrics file), `waiting`, `dead`, `counters`, `warnings`."""
    head, counts, depth = await service.log.head(), await service.records.counts(), await store.depth()
    known = engine.lag()
    lag = max(0, known)
    unread = unread_warnings(inventory, head.revision) if known == UNKNOWN_LAG else []
    return {
        "store": store_name,
        "revision": head.revision,
        "cursor": str(head.cursor),
        "records": sum(counts.values()),
        "kinds": counts,
        "targets": [target_view(inventory, address) for address in sorted(inventory.targets)],
        "routes": len(inventory.table.routes),
        "health": {"queue_depth": depth.queue_depth + lag, "webhooks_pending": depth.webhooks_pending + lag},
        "waiting": depth.waiting,
        "dead": depth.dead,
        "counters": msgspec.to_builtins(depth.counters),
        "warnings": [*warnings_of(inventory), *unread],
    }


def unread_warnings(inventory: Inventory, newest: int) -> list[str]:
    """Without a daemon nobody has looked at the newest revisions: what of them is for a target is not counted yet."""
    found = []
    for address in sorted(inventory.targets):
        lane = inventory.lane(address)
        behind = newest - (inventory.position(lane).revision if lane else 0)
        if behind > 0 and inventory.table.by_target.get(address):
            name = address.removeprefix(f"{SYSTEM_NAMESPACE}/")
            found.append(f"target {name}: the newest {behind} revisions have not been looked at: ureg up")
    return found


def warnings_of(inventory: Inventory) -> list[str]:
    """What needs somebody: targets that nothing can be sent to, deliveries given up, routes that cannot be followed."""
    found = []
    for address in sorted({*inventory.targets, *inventory.table.by_target}):
        name = address.removeprefix(f"{SYSTEM_NAMESPACE}/")
        lane = inventory.lane(address)
        if held := inventory.held(address):
            waiting = f", {lane.rows} waiting" if lane is not None and lane.rows else ""
            found.append(f"target {name}: {held}{waiting}")
        if lane is not None and (soon := notice(lane)):
            found.append(f"target {name}: {soon}")
        if lane is not None and lane.dead:
            found.append(f"target {name}: {lane.dead} given up: ureg delivery ls")
    found += [f"{fault}; nothing follows it" for fault in inventory.faults.values()]
    return found
