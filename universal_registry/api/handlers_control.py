"""Propagation: targets, routes, sessions, deliveries, and where a record has arrived. All rules are in `control`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from universal_registry.api.context import Call, Context, body_as, needed
from universal_registry.api.http import Response, json_response
from universal_registry.kernel.errors import NotFound, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key
from universal_registry.propagation.lane import DeliveryState

MOST_DELIVERIES = 1000


class TargetBody(msgspec.Struct, forbid_unknown_fields=True):
    """A target to add. `select`: also make a route of the same name with this selector."""

    name: str
    url: str
    namespace: str = "system"
    network: Literal["public", "private", "loopback"] | None = None
    select: str | None = None
    secret: str | None = None
    insecure_http: bool = False


class RouteBody(msgspec.Struct, forbid_unknown_fields=True):
    """A route to make or change: records that match `select` go to each of `targets` (`[namespace/]name`)."""

    name: str
    select: str
    targets: list[str]
    secrets: Literal["redact", "include"] = "redact"


class PropagateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`source` to `target`. Without `data` (or null): for good, or the state `once`. With it: this payload, once."""

    source: str
    target: str
    mode: str = "unidirectional"
    data: Any = None
    once: bool = False
    strict: bool = False


# --- targets --------------------------------------------------------------------------------------------------------


async def add_target(context: Context, call: Call) -> Response:
    """Add a target, or find it there. The signing secret of a new one is in this answer and in no other."""
    body = await body_as(TargetBody, call)
    added = await context.control.add_target(
        body.name,
        body.url,
        namespace=body.namespace,
        network=body.network,
        select=body.select,
        secret=body.secret,
        insecure_http=body.insecure_http,
        actor=call.who,
        once_key=call.once_as(json_response),
    )
    return json_response(added)


async def targets(context: Context, _: Call) -> Response:
    """All targets with their state."""
    return json_response({"items": await context.control.targets()})


async def target(context: Context, call: Call) -> Response:
    """One target with its state."""
    return json_response(await context.control.target(call.params["namespace"], call.params["name"]))


async def test_target(context: Context, call: Call) -> Response:
    """Send one test event now. Nothing of it is recorded. `show` adds the exact request."""
    found = await context.control.test_target(
        call.params["namespace"], call.params["name"], show=call.request.flag("show")
    )
    return json_response(found)


# --- routes and sessions --------------------------------------------------------------------------------------------


async def add_route(context: Context, call: Call) -> Response:
    """Make a route, or change it."""
    body = await body_as(RouteBody, call)
    added = await context.control.add_route(
        body.name,
        body.select,
        body.targets,
        secrets=body.secrets,
        actor=call.who,
        once_key=call.once_as(json_response),
    )
    return json_response(added)


async def routes(context: Context, _: Call) -> Response:
    """All routes."""
    return json_response({"items": await context.control.routes()})


async def propagate(context: Context, call: Call) -> Response:
    """Begin a propagation: standing, or once."""
    body = await body_as(PropagateBody, call)
    begun = await context.control.propagate(
        body.mode,
        body.source,
        body.target,
        body.data,
        once=body.once,
        strict=body.strict,
        actor=call.who,
        once_key=call.once_as(json_response),
    )
    return json_response(begun)


async def sessions(context: Context, _: Call) -> Response:
    """All sessions."""
    return json_response({"items": await context.control.sessions()})


async def session(context: Context, call: Call) -> Response:
    """One session with its targets."""
    return json_response(await context.control.session(call.params["id"]))


# --- arrival --------------------------------------------------------------------------------------------------------


async def where(context: Context, call: Call) -> Response:
    """Which revision of a record has reached which target, and why not the newest."""
    namespace = call.request.value("namespace") or None
    return json_response({"items": await context.control.where(needed(call, "name"), namespace)})


async def deliveries(context: Context, call: Call) -> Response:
    """Deliveries that are under way, waiting, held or dead."""
    request = call.request
    found = await context.control.deliveries(
        target=request.value("target") or None,
        key=await _record_key(context, request.value("name"), request.value("namespace") or None),
        session=request.value("session") or None,
        states=_states(request.values("state")),
        limit=request.integer("limit", 100, 1, MOST_DELIVERIES),
    )
    return json_response({"items": found})


async def attempts(context: Context, call: Call) -> Response:
    """The attempts at one delivery that did not succeed, oldest first."""
    return json_response({"items": await context.control.attempts(call.params["id"])})


async def _record_key(context: Context, reference: str, namespace: str | None) -> Key | None:
    """The key of the record that `[kind/]name` means; one that was deleted is still found by its kind and name."""
    if not reference:
        return None
    record = await context.service.find_one(reference, namespace)
    if record is not None:
        return record.key
    kind, _, name = reference.partition("/")
    if not name:
        raise NotFound(f"there is no record {reference[:80]!r}", hint="a deleted one is found by kind/name")
    return context.service.key(kind, namespace or DEFAULT_NAMESPACE, name)


def _states(words: list[str]) -> tuple[DeliveryState, ...]:
    try:
        return tuple(DeliveryState(word) for word in words)
    except ValueError as error:
        raise UsageError(f"a state that there is not: {error}", hint=", ".join(DeliveryState)) from None


async def status(context: Context, _: Call) -> Response:
    """What there is and how it goes: records, targets, queue, warnings."""
    return json_response(await context.control.status())
