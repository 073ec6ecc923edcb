"""Telling lanes what to do: found by the names that people use, checked, stored for the lane's owner."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

from universal_registry.kernel.errors import Conflict, Invalid, NotFound
from universal_registry.propagation.lanes.breaker import LONGEST_OPEN
from universal_registry.propagation.lanes.lane import DeliveryState
from universal_registry.propagation.lanes.lane_command import Action, Command
from universal_registry.propagation.ports import LaneCommands, LaneQueries
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.registry.service import Actor
from universal_registry.registry.words import shown

LONGEST = timedelta(days=365)
_LONGEST_REASON = 200


class Store(LaneCommands, LaneQueries, Protocol):
    """The part of the propagation store that telling needs."""


async def tell_target(
    inventory: Inventory,
    store: Store,
    name: str,
    action: Action,
    *,
    actor: Actor,
    duration: timedelta | None = None,
    reason: str = "",
) -> str:
    """Store the word to the target's lane; its address. `duration`: of OPEN. Raises NotFound, Invalid."""
    address = inventory.require(name)
    if duration is not None and not timedelta(0) < duration <= LONGEST:
        raise Invalid(f"a breaker is opened for at most {LONGEST.days} days", path="seconds")
    until: datetime | None = None
    if action is Action.OPEN:
        until = inventory.now + (duration or LONGEST_OPEN)
    await store.give(
        Command(
            lane_id=inventory.targets[address].uid,
            action=action,
            actor=actor.name,
            at=inventory.now,
            until=until,
            reason=_checked(reason),
        )
    )
    return address


async def tell_delivery(
    inventory: Inventory, store: Store, delivery_id: str, action: Action, *, actor: Actor, reason: str = ""
) -> dict[str, Any]:
    """Store the word on a dead delivery: `delivery`, `target`, `action`. Raises NotFound, Conflict for one not dead."""
    row = await store.delivery(delivery_id)
    if row is None:
        hint = "`ureg delivery ls --state dead` lists those that were given up"
        raise NotFound(f"there is no delivery {shown(delivery_id)} that was given up", hint=hint)
    if row.state is not DeliveryState.DEAD:
        raise Conflict(f"delivery {delivery_id} is {row.state.value}, not dead", hint="only what was given up is told")
    command = Command(
        lane_id=row.lane_id,
        action=action,
        actor=actor.name,
        at=inventory.now,
        delivery_id=delivery_id,
        reason=_checked(reason),
    )
    await store.give(command)
    lane = inventory.lanes.get(row.lane_id)
    target = f"{lane.target_namespace}/{lane.target_name}" if lane else None
    return {"delivery": delivery_id, "target": target, "action": action.value}


def _checked(reason: str) -> str:
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise Invalid(f"a reason is one line of at most {_LONGEST_REASON} characters", path="reason")
    return reason
