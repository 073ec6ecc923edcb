"""Watches as lines (NDJSON) or as server-sent events, and named consumers. The contract is `api/watcher.py`'s."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.api.context import Call, Context, body_as
from universal_registry.api.handlers_records import selector_of
from universal_registry.api.http import NDJSON_TYPE, Request, Response, json_response
from universal_registry.api.watch_lines import LineWatch
from universal_registry.api.watcher import HEARTBEAT, Asked, Policy, Start
from universal_registry.kernel.errors import Malformed, UsageError
from universal_registry.log.chain import GENESIS
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.registry.consumers import Consumer
from universal_registry.registry.selector import parse_selector, selector_document
from universal_registry.registry.watch import Frame, FrameKind
from universal_registry.registry.words import near, shown

SSE_TYPE = "text/event-stream"
LONGEST_HEARTBEAT = 60
MOST_LAG = 100_000_000
_FILTERS = ("select", "kind", "namespace", "name", "class", "label", "field")


class ConsumerBody(msgspec.Struct, forbid_unknown_fields=True):
    """A named consumer. `select`: selectors, as in `kind=alias`. `start`: `now`, `beginning` or a cursor; absent: where
    it stands, a new one at `now`."""

    select: list[str] = []
    start: str = ""


async def watch(context: Context, call: Call) -> Response:
    """Changes as they happen, one frame a line, until either side ends it. Each frame has the cursor behind it.

    With `Accept: text/event-stream` each frame is an event whose id is the cursor, and `Last-Event-ID` goes on.
    """
    as_events = call.request.accepts(SSE_TYPE)
    heartbeat = call.request.integer("heartbeat", int(HEARTBEAT), 1, LONGEST_HEARTBEAT)
    watcher = await context.lines.hub.open(await asked_of(context, call.request))
    told = LineWatch(
        context.lines,
        watcher,
        _event if as_events else _line,
        form="events" if as_events else "lines",
        heartbeat=heartbeat,
        still=lambda: context.still(call.request, call.who),
    )
    content_type = f"{SSE_TYPE}; charset=utf-8" if as_events else NDJSON_TYPE
    return Response(headers=(("content-type", content_type),), body=told.pieces(), through=told.through)


def _line(frame: Frame) -> bytes:
    return frame.data + b"\n"


def _event(frame: Frame) -> bytes:
    if (made := frame.wires.get("sse")) is None:
        # A browser goes on behind the last id by itself. An end has none, or that to read anew would be missed.
        is_place = frame.cursor is not None and frame.kind is not FrameKind.END
        place = b"id: %s\n" % str(frame.cursor).encode() if is_place else b""
        made = frame.wires["sse"] = b"%sevent: %s\ndata: %s\n\n" % (place, frame.kind.encode(), frame.data)
    return made


async def asked_of(context: Context, request: Request) -> Asked:
    """What a request wants to watch. Raises UsageError, Malformed, NotFound."""
    policy = _policy(request.value("policy", Policy.WAIT))
    most_lag = request.integer("max_lag", 100_000, 1, MOST_LAG)
    selector, start = selector_of(context, request), start_of(request.value("from", Start.NOW))
    if name := _consumer_name(request):
        if any(request.values(each) for each in _FILTERS):
            raise UsageError("`consumer` and a selector are both given", hint="the consumer has its own")
        consumer = await context.observed.consumers.get(name)
        selector = parse_selector(consumer.selector, context.service.catalogue)
        start = start if request.value("from") else consumer.place
    if last := request.header("last-event-id"):
        start = parse_cursor(last)
    return Asked(selector=selector, start=start, policy=policy, most_lag=most_lag)


def start_of(word: str) -> Start | Cursor:
    """Where a watch begins. Raises Malformed for what is neither a word for it nor a cursor."""
    if word in tuple(Start):
        return Start(word)
    try:
        return parse_cursor(word)
    except Malformed:
        hint = "now, beginning, list, or a cursor of an earlier answer"
        raise Malformed(f"{shown(word)} is no place to begin at", hint=hint) from None


def _consumer_name(request: Request) -> str:
    """The named consumer that is asked for; none: the empty text. What a script leaves empty is not everything."""
    given = request.values("consumer")
    if given and not given[0]:
        raise UsageError("`consumer` is given without a name", hint="`ureg consumer ls` lists them")
    return request.value("consumer")


def _policy(word: str) -> Policy:
    if word in tuple(Policy):
        return Policy(word)
    guesses = near(word, tuple(Policy))
    hint = f"did you mean {guesses[0]!r}?" if guesses else "wait, coalesce or drop"
    raise UsageError(f"policy {shown(word)} is unknown", hint=hint)


# --- named consumers ------------------------------------------------------------------------------------------------


async def put_consumer(context: Context, call: Call) -> Response:
    """Make a named consumer, or change what it reads."""
    body = await body_as(ConsumerBody, call)
    selector = selector_document(parse_selector(body.select, context.service.catalogue))
    start = await _place(context, body.start) if body.start else None
    kept = await context.observed.consumers.keep(call.params["name"], selector, start, actor=call.who.name)
    return json_response(await _view(context, kept))


async def _place(context: Context, word: str) -> Cursor:
    match start_of(word):
        case Cursor() as cursor:
            return cursor
        case Start.BEGINNING:
            return Cursor((await context.service.log.head()).incarnation, 0, GENESIS[:4].hex())
        case Start.NOW:
            return (await context.service.log.head()).cursor
    raise UsageError("a consumer has a place in the log", hint="start: now, beginning or a cursor")


async def consumers(context: Context, _: Call) -> Response:
    """All named consumers, with how far behind each is."""
    return json_response({"items": [await _view(context, each) for each in await context.observed.consumers.all()]})


async def consumer(context: Context, call: Call) -> Response:
    """One named consumer."""
    return json_response(await _view(context, await context.observed.consumers.get(call.params["name"])))


async def acknowledge(context: Context, call: Call) -> Response:
    """Everything up to `cursor` has been dealt with; the next watch of the consumer begins behind it."""
    cursor = parse_cursor(call.request.value("cursor"))
    kept = await context.observed.consumers.acknowledge(call.params["name"], cursor)
    return json_response(await _view(context, kept))


async def remove_consumer(context: Context, call: Call) -> Response:
    """Forget a named consumer."""
    await context.observed.consumers.remove(call.params["name"], actor=call.who.name)
    return json_response({"name": call.params["name"], "result": "removed"})


async def _view(context: Context, consumer: Consumer) -> dict[str, Any]:
    head = await context.service.log.head()
    place = consumer.place
    lag = head.revision - place.revision if place.incarnation == head.incarnation else None
    return {**msgspec.structs.asdict(consumer), "lag": lag}
