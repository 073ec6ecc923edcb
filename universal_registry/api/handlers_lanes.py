"""What people tell targets and deliveries: pause, resume, disable, enable, the breaker; redrive, skip."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

from universal_registry.api.context import Call, Context, body_as
from universal_registry.api.http import Response, json_response
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.propagation.verbs.lane_verbs import LONGEST


class TellBody(msgspec.Struct, forbid_unknown_fields=True):
    """`action`: what the target's lane is to do; `reset` and `open` are of its breaker. `seconds`: how long it stays
    open, 900 if absent. `reason`: why, for those who look later."""

    action: Literal["pause", "resume", "disable", "enable", "reset", "open"]
    seconds: float | None = None
    reason: str = ""


class WhyBody(msgspec.Struct, forbid_unknown_fields=True):
    """`reason`: why, for those who look later."""

    reason: str = ""


_ACTIONS = {
    "pause": Action.PAUSE,
    "resume": Action.RESUME,
    "disable": Action.DISABLE,
    "enable": Action.ENABLE,
    "reset": Action.RESET,
    "open": Action.OPEN,
}


async def tell_target(context: Context, call: Call) -> Response:
    """Tell a target's lane what to do. The answer is the target as it then stands."""
    body = await body_as(TellBody, call)
    told = await context.control.tell_target(
        call.params["namespace"],
        call.params["name"],
        _ACTIONS[body.action],
        actor=call.who,
        duration=None if body.seconds is None else _duration(body.seconds),
        reason=body.reason,
    )
    return json_response(told)


def _duration(seconds: float) -> timedelta:
    """As it is within what is allowed; beyond, something that is refused: not every number makes a timedelta."""
    return timedelta(seconds=max(0.0, min(seconds, 2 * LONGEST.total_seconds())))


async def redrive(context: Context, call: Call) -> Response:
    """Send a delivery again that was given up: of a record the current state, if that is newer."""
    return await _tell_delivery(context, call, Action.REDRIVE)


async def skip(context: Context, call: Call) -> Response:
    """Go on without a delivery that was given up."""
    return await _tell_delivery(context, call, Action.SKIP)


async def _tell_delivery(context: Context, call: Call, action: Action) -> Response:
    body = await body_as(WhyBody, call)
    told = await context.control.tell_delivery(call.params["id"], action, actor=call.who, reason=body.reason)
    return json_response(told)
