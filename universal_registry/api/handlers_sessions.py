"""Words on sessions, and explanations. All rules are in `control`."""

from __future__ import annotations

import msgspec

from universal_registry.api.context import Call, Context, body_as, needed
from universal_registry.api.http import Response, json_response
from universal_registry.kernel.errors import UsageError
from universal_registry.propagation.lanes.lane import Verb
from universal_registry.propagation.verbs.sessions import ReplayAsk
from universal_registry.registry.words import shown


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """What to send again: lines after `since` and up to `until` (each a revision, a cursor or a time), to `targets`
    (all if none), of records that `select` matches."""

    since: str = ""
    until: str = ""
    targets: list[str] = []
    select: str = ""


async def tell_session(context: Context, call: Call) -> Response:
    """Pause, resume or cancel a session."""
    word = call.params["verb"]
    if word not in list(Verb):
        raise UsageError(f"{shown(word)} is nothing that a session is told", hint=", ".join(Verb))
    told = await context.control.tell_session(
        call.params["id"], Verb(word), actor=call.who, once_key=call.once_as(json_response)
    )
    return json_response(told)


async def replay(context: Context, call: Call) -> Response:
    """Send again what a session sent, as a new session."""
    body = await body_as(ReplayBody, call)
    ask = ReplayAsk(
        session=call.params["id"],
        since=body.since,
        until=body.until,
        targets=tuple(body.targets),
        select=body.select,
    )
    return json_response(await context.control.replay(ask, actor=call.who, once_key=call.once_as(json_response)))


async def foresee_replay(context: Context, call: Call) -> Response:
    """How many deliveries that would make. Nothing is stored."""
    request = call.request
    ask = ReplayAsk(
        session=call.params["id"],
        since=request.value("since"),
        until=request.value("until"),
        targets=tuple(request.values("target")),
        select=request.value("select"),
    )
    return json_response(await context.control.foresee_replay(ask))


async def why(context: Context, call: Call) -> Response:
    """Why a delivery is where it is."""
    return json_response(await context.control.why(call.params["id"]))


async def explain(context: Context, call: Call) -> Response:
    """Who gets a record and why, and who does not and why not."""
    namespace = call.request.value("namespace") or None
    return json_response({"items": await context.control.explain(needed(call, "name"), namespace)})
