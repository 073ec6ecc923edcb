"""Studios: bindings of records to components, the exchange with whoever keeps a copy, and what was exchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from universal_registry.api.context import BULK_LIMITS, Call, Context, body_as
from universal_registry.api.http import Response, json_response
from universal_registry.kernel.errors import Invalid, NotFound, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.propagation.studio.binding import DEFAULT_STUDIO, entry_text, read_direction
from universal_registry.propagation.studio.exchange import Pushed, Told, binding_view
from universal_registry.registry.words import shown

LONGEST_WAIT = 60
MOST_CHANGES, MOST_PUSHED = 5000, 500
MOST_ROWS = 1000
_NET_SECONDS = 1.0


class BindBody(msgspec.Struct, forbid_unknown_fields=True):
    """`entry` (`[kind/]name`) is `component` of the studio (or several `components`, with direction multicast).

    `direction`: unidirectional, bidirectional, multicast or broadcast. `protocol`: how the studio follows it.
    """

    entry: str
    component: str | None = None
    components: list[str] = []
    direction: str = "bidirectional"
    studio: str = DEFAULT_STUDIO
    namespace: str | None = None
    protocol: str = ""


class SyncBody(msgspec.Struct, forbid_unknown_fields=True):
    """`cursor`: of the answer before, whose changes are stored now; absent: go on where that was said last. `push`:
    what the studio has changed. `wait`: so many seconds for a change. `full`: all that is bound, as it is now."""

    cursor: str = ""
    push: list[Pushed] = []
    wait: int = 0
    limit: int = 500
    full: bool = False


async def nexus_bind(context: Context, call: Call) -> Response:
    """Say which component of a studio a record is. The same again changes nothing; another direction replaces it."""
    body = await body_as(BindBody, call)
    components = [*([body.component] if body.component is not None else ()), *body.components]
    if not components:
        raise UsageError("no component is given", hint="component, or components for multicast")
    told = await context.observed.studio.bind(
        body.entry,
        components,
        direction=read_direction(body.direction),
        studio=body.studio,
        namespace=body.namespace,
        protocol=body.protocol,
        actor=call.who,
    )
    return json_response(told, headers=(("registry-revision", str(told["revision"])),))


async def nexus_bindings(context: Context, call: Call) -> Response:
    """All bindings, or those that a studio is told of."""
    found = await context.observed.studio.bindings(call.request.value("studio"))
    return json_response({"items": [binding_view(each) for each in found]})


async def nexus_unbind(context: Context, call: Call) -> Response:
    """Forget a binding. The record stays, and so does the component."""
    await context.observed.studio.unbind(call.params["name"], actor=call.who)
    return json_response({"binding": call.params["name"], "result": "removed"})


async def nexus_sync(context: Context, call: Call) -> Response:
    """Acknowledge, push and pull in one exchange. Pushes are done first, each with an answer of its own. Changes are
    told as states: to be told one twice does no harm. With `wait`, an answer that has none is held back for them."""
    body = await body_as(SyncBody, call, limits=BULK_LIMITS)
    _check(body)
    studio, name = context.observed.studio, call.params["studio"]
    after = await studio.start(name, parse_cursor(body.cursor) if body.cursor else None, actor=call.who)
    pushed = await studio.push(name, body.push, actor=call.who)
    told = await _pull(context, name, None if body.full else after, body)
    return json_response({
        "studio": name, "cursor": str(told.cursor), "more": told.more, "changes": told.changes, "pushed": pushed,
    })  # fmt: skip


def _check(body: SyncBody) -> None:
    if not 0 <= body.wait <= LONGEST_WAIT:
        raise Invalid(f"wait is {body.wait}", hint=f"seconds, 0 to {LONGEST_WAIT}")
    if not 1 <= body.limit <= MOST_CHANGES:
        raise Invalid(f"limit is {body.limit}", hint=f"1 to {MOST_CHANGES}")
    if len(body.push) > MOST_PUSHED:
        raise Invalid(f"{len(body.push)} components are pushed", hint=f"at most {MOST_PUSHED} at once")


async def _pull(context: Context, name: str, after: Cursor | None, body: SyncBody) -> Told:
    loop = asyncio.get_running_loop()
    until = loop.time() + (0 if body.push else body.wait)
    while True:
        wakeup = context.wakeup.ticket()  # before the look: a commit during it is not missed
        told = await context.observed.studio.pull(name, after, body.limit)
        left = until - loop.time()
        if told.changes or left <= 0 or context.wakeup.closing:
            return told
        after = told.cursor
        try:
            async with asyncio.timeout(min(left, _NET_SECONDS)):
                await wakeup.wait()
        except TimeoutError:
            continue


async def nexus_history(context: Context, call: Call) -> Response:
    """What was exchanged, newest first: of one record, of one studio, or all."""
    request = call.request
    entry = await _entry(context, request.value("entry"), request.value("namespace") or None)
    limit = request.integer("limit", 100, 1, MOST_ROWS)
    rows = await context.observed.studio.history(entry, request.value("studio") or None, limit)
    items: list[dict[str, Any]] = [msgspec.structs.asdict(row) for row in rows]
    return json_response({"items": items})


async def _entry(context: Context, reference: str, namespace: str | None) -> str | None:
    """The record as the log of exchanges names it; one that is gone is found by kind/name."""
    if not reference:
        return None
    record = await context.service.find_one(reference, namespace)
    if record is not None:
        return entry_text(record.key)
    kind, slash, name = reference.partition("/")
    if not slash:
        raise NotFound(f"there is no record {shown(reference)}", hint="one that was deleted is named as kind/name")
    return entry_text(context.service.key(kind, namespace or DEFAULT_NAMESPACE, name))
