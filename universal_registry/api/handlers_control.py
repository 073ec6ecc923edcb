"""Propagation: targets, routes, sessions, deliveries, and where a record has arrived. All rules are in `control`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from universal_registry.api.context import Call, Context, body_as, needed
from universal_registry.api.http import TEXT_TYPE, Response, json_response
from universal_registry.api.moments import past_moment
from universal_registry.kernel.errors import Invalid, NotFound, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key
from universal_registry.observe.kept_history import kept_warnings
from universal_registry.propagation.lanes.lane import DeliveryState
from universal_registry.propagation.routing.modes import MODES, ON_FAILURE
from universal_registry.propagation.views.status_lines import status_lines
from universal_registry.registry.words import shown

MOST_DELIVERIES = 1000
LONGEST_DEADLINE = 366 * 86400.0
_WIDEST = 10_000


class RouteBody(msgspec.Struct, forbid_unknown_fields=True):
    """A route to make or change: records that match `select` go to each of `targets` (`[namespace/]name`).

    `filter`: only those changes of them.
    """

    name: str
    select: str
    targets: list[str]
    secrets: Literal["redact", "include"] = "redact"
    filter: str = ""


class PropagateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`source` to `targets` (or one `target`). Without `data` (or null): for good, or the state `once`. With it: this
    payload, once, until `deadline` (seconds). `exclude` and `follow` are for mode broadcast, `on_failure` for chain."""

    source: str | None = None
    target: str | None = None
    targets: list[str] = []
    mode: str = "unidirectional"
    data: Any = None
    once: bool = False
    strict: bool = False
    exclude: list[str] = []
    follow: bool = False
    on_failure: Literal["stop", "skip"] | None = None
    deadline: float | None = None


# --- targets --------------------------------------------------------------------------------------------------------


async def targets(context: Context, _: Call) -> Response:
    """All targets with their state."""
    return json_response({"items": await context.control.targets()})


async def target(context: Context, call: Call) -> Response:
    """One target with its state."""
    return json_response(await context.control.target(call.params["namespace"], call.params["name"]))


# --- routes and sessions --------------------------------------------------------------------------------------------


async def add_route(context: Context, call: Call) -> Response:
    """Make a route, or change it."""
    body = await body_as(RouteBody, call)
    added = await context.control.add_route(
        body.name,
        body.select,
        body.targets,
        secrets=body.secrets,
        filter_text=body.filter,
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
        [*([body.target] if body.target is not None else ()), *body.targets],
        body.data,
        once=body.once,
        strict=body.strict,
        exclude=tuple(body.exclude),
        follow=body.follow,
        on_failure=body.on_failure,
        deadline=_positive(body.deadline),
        actor=call.who,
        once_key=call.once_as(json_response),
    )
    if call.request.flag("state"):
        begun = {**begun, "state": (await context.control.session(begun["session"]))["state"]}
    return json_response(begun)


async def foresee(context: Context, call: Call) -> Response:
    """What POST to the same path would do. Nothing is stored."""
    request = call.request
    found = await context.control.foresee(
        request.value("mode") or MODES[0],
        request.value("source") or None,
        request.values("target"),
        {} if request.flag("event") else None,
        once=request.flag("once"),
        strict=request.flag("strict"),
        exclude=tuple(request.values("exclude")),
        follow=request.flag("follow"),
        on_failure=_word(request.value("on_failure"), "on_failure", ON_FAILURE),
        actor=call.who,
    )
    return json_response(found)


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= LONGEST_DEADLINE:
        raise Invalid(f"deadline is {seconds:g}", hint=f"seconds, more than 0 and at most {LONGEST_DEADLINE:.0f}")
    return seconds


def _word(text: str, name: str, allowed: tuple[str, ...]) -> str | None:
    if text and text not in allowed:
        raise UsageError(f"{name} is {text[:40]!r}", hint=" or ".join(allowed))
    return text or None


async def sessions(context: Context, _: Call) -> Response:
    """All sessions."""
    return json_response({"items": await context.control.sessions()})


async def session(context: Context, call: Call) -> Response:
    """One session with its targets."""
    return json_response(await context.control.session(call.params["id"]))


async def waterfall(context: Context, call: Call) -> Response:
    """One session on one axis of time: what was planned, tried and delivered when."""
    return json_response(await context.control.waterfall(call.params["id"]))


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
        since=past_moment(request.value("since"), context.service.world.now(), "since"),
        limit=request.integer("limit", 100, 1, MOST_DELIVERIES),
    )
    return json_response({"items": found})


async def delivery(context: Context, call: Call) -> Response:
    """One delivery that has not arrived, with the attempts at it that failed."""
    return json_response(await context.control.delivery(call.params["id"]))


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
    unknown = [word for word in words if word not in set(DeliveryState)]
    if unknown:
        held = "; what is held is pending or waiting" if "held" in unknown else ""
        raise UsageError(f"{shown(unknown[0])} is no state to ask for{held}", hint="one of " + ", ".join(DeliveryState))
    return tuple(DeliveryState(word) for word in words)


async def status(context: Context, call: Call) -> Response:
    """What there is and how it goes: records, targets, queue, warnings. In lines for people, if they are asked for."""
    width = call.request.integer("width", 0, 0, _WIDEST)
    found = await context.control.status()
    found["warnings"] = [*found["warnings"], *await context.observed.keys.warnings()]
    found["warnings"] += [trouble] if (trouble := context.observed.figures.backup_trouble()) else []
    found["warnings"] += kept_warnings(context.observed.compaction.kept, found["targets"])
    horizon = await context.service.log.horizon()
    found["history"] = {"values": horizon.values, "lines": horizon.lines}
    found["streams"] = {"open": context.observed.streams.open_now(), "messages": found["counters"]["messages"]}
    if not call.request.accepts(TEXT_TYPE):
        return json_response(found)
    text = "".join(f"{line}\n" for line in status_lines(msgspec.to_builtins(found), width or None))
    return Response(status=200, headers=(("content-type", f"{TEXT_TYPE}; charset=utf-8"),), body=text.encode())
