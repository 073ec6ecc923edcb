"""The state of everything in one answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.lanes.auto_disable import notice
from universal_registry.propagation.ports import Birth, LaneStore
from universal_registry.propagation.routing.unread import counted
from universal_registry.propagation.views.inventory import UNKNOWN_LAG, EngineView, Inventory
from universal_registry.propagation.views.plain import moment_text, target_view
from universal_registry.registry.service import RegistryService

MADE_ANEW = "it was made anew: what was delivered before may be sent again"
_REMEMBERED = timedelta(days=1)


async def status_of(
    service: RegistryService, store: LaneStore, engine: EngineView, inventory: Inventory, store_name: str
) -> dict[str, Any]:
    """`store`, `revision`, `cursor`, `records`, `kinds` (kind -> records), `targets`, `routes` (how many), `health`
    (the two gauges of the metrics file), `unread` (revisions that have not been looked at to their end for the target
    that is furthest behind), `unread_lines` (the lines of them, counted up to 10,000), `waiting`, `dead`, `counters`,
    `warnings`."""
    head, counts, depth = await service.log.head(), await service.records.counts(), await store.depth()
    known = await engine.lag()
    lag = max(0, known)
    unread = unread_warnings(inventory, head.revision) if known == UNKNOWN_LAG else []
    targets = [target_view(inventory, address) for address in sorted(inventory.targets)]
    return {
        "store": store_name,
        "revision": head.revision,
        "cursor": str(head.cursor),
        "records": sum(counts.values()),
        "kinds": counts,
        "targets": targets,
        "routes": len(inventory.table.routes),
        "health": {"queue_depth": depth.queue_depth + lag, "webhooks_pending": depth.webhooks_pending + lag},
        "unread": max((each["drift"]["unread"] for each in targets), default=0),
        "unread_lines": max((each["drift"]["unread_lines"] for each in targets), default=0),
        "waiting": depth.waiting,
        "dead": depth.dead,
        "counters": msgspec.to_builtins(depth.counters),
        "warnings": [*warnings_of(inventory), *unread, *birth_warnings(await store.birth(), inventory.now)],
    }


def unread_warnings(inventory: Inventory, newest: int) -> list[str]:
    """Without a daemon nobody has looked at the newest revisions: what of them is for a target is not counted yet."""
    found = []
    for address in sorted(inventory.targets):
        behind = newest - inventory.place(address).whole
        if behind > 0 and inventory.table.by_target.get(address):
            name = address.removeprefix(f"{SYSTEM_NAMESPACE}/")
            newest_ones = "newest revision has" if behind == 1 else f"newest {behind} revisions have"
            lines = counted(inventory.unread.behind(inventory.place(address)))
            found.append(f"target {name}: the {newest_ones} not been read to the end ({lines}): ureg up")
    return found


def birth_warnings(birth: Birth | None, now: datetime) -> list[str]:
    """For a day: that nothing is known of what was delivered before, because the propagation store was lost."""
    if birth is None or not birth.revision or now - birth.at >= _REMEMBERED:
        return []
    return [f"the propagation store was missing at {moment_text(birth.at)}; {MADE_ANEW}"]


def warnings_of(inventory: Inventory) -> list[str]:
    """What needs somebody: targets that nothing can be sent to, deliveries given up, routes that cannot be followed."""
    found = []
    for address in sorted({*inventory.targets, *inventory.table.by_target}):
        name = address.removeprefix(f"{SYSTEM_NAMESPACE}/")
        lane = inventory.lane(address)
        if held := inventory.held(address) or inventory.slowed(address):
            waiting = f", {lane.rows} waiting" if lane is not None and lane.rows else ""
            found.append(f"target {name}: {held}{waiting}")
        if lane is not None and (soon := notice(lane)):
            found.append(f"target {name}: {soon}")
        if lane is not None and lane.dead:
            found.append(f"target {name}: {lane.dead} given up: ureg delivery ls")
    found += [f"{fault}; nothing follows it" for fault in inventory.faults.values()]
    for peer in inventory.counterparts.values():
        if peer.state in ("partitioned", "degraded"):
            found.append(f"peer {peer.name}: {peer.state}: {peer.reason}")
    if any(peer.reviewed for peer in inventory.counterparts.values()):
        found.append("there are conflicts to review: ureg conflict ls")
    return found
