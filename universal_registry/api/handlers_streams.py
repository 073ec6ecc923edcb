"""Streams as resources: what there is, what each has carried, and data sent into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from universal_registry.api.context import Call, Context, body_as
from universal_registry.api.http import Response, json_response
from universal_registry.kernel.errors import NotFound, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key, check_name
from universal_registry.propagation.streams import IN, OUT, Carried
from universal_registry.registry.selector import Selector
from universal_registry.registry.service import Written
from universal_registry.registry.words import shown

KIND = "endpoint"
CLASSES = ("StreamEndpoint", "WebSocketEndpoint")
_PAGE = 500


class DataBody(msgspec.Struct, forbid_unknown_fields=True):
    """Data for a stream: any JSON value."""

    data: Any
    message: str = ""


async def stream(_context: Context, _call: Call) -> Response:
    """Subscriptions and pushes, both at once, over a WebSocket. This answer is for whoever asks in another way."""
    raise UsageError("this is a WebSocket: the request is no handshake", hint="ws:// on a connection of its own")


async def streams(context: Context, _: Call) -> Response:
    """All streams, with what each has carried."""
    totals = await context.observed.streams.totals()
    names: dict[str, str] = {each.stream: "" for each in totals} | dict.fromkeys(context.observed.streams.is_open, "")
    for each in CLASSES:
        selector = Selector(kinds=(KIND,), namespaces=(DEFAULT_NAMESPACE,), classifications=(each,))
        async for page in context.service.pages(selector, size=_PAGE):
            names |= {record.name: str(record.spec.get("protocol", "")) for record in page.records}
    return json_response({"items": [_view(context, name, names[name], totals) for name in sorted(names)]})


async def one_stream(context: Context, call: Call) -> Response:
    """One stream, with what it has carried."""
    name = call.params["id"]
    totals = await context.observed.streams.totals()
    record = (await context.service.records.look(_key(name))).record
    if record is None and name not in {each.stream for each in totals} | context.observed.streams.is_open.keys():
        raise _unknown(name)
    protocol = str(record.spec.get("protocol", "")) if record else ""
    return json_response(_view(context, name, protocol, totals))


async def send_data(context: Context, call: Call) -> Response:
    """Send data into a stream: whoever watches it is told, now and when he comes back."""
    body = await body_as(DataBody, call)
    key = _key(call.params["id"])
    if (await context.service.records.look(key)).record is None:
        raise _unknown(key.name)
    session = context.service.world.new_id()

    def answer(written: Written) -> Response:
        told = {"stream": key.name, "session": session, "revision": written.revision, "cursor": written.cursor}
        return json_response(told, headers=(("registry-revision", str(written.revision)),))

    written = await context.service.emit(
        key,
        body.data,
        audience=(),
        session=session,
        actor=call.who,
        message=body.message,
        once=call.once_as(answer),
    )
    return answer(written)


def _key(name: str) -> Key:
    return Key(KIND, DEFAULT_NAMESPACE, check_name(name))


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no stream {shown(name)}", hint="`ureg enable-stream ID websocket` makes one")


def _view(context: Context, name: str, protocol: str, totals: Sequence[Carried]) -> dict[str, Any]:
    shown_of = {
        each.direction: {
            "messages": each.messages,
            "bytes": each.size,
            "latency_ms": each.latency_ms,
            "last_update": each.last_update,
        }
        for each in totals
        if each.stream == name
    }
    nothing = {"messages": 0, "bytes": 0, "latency_ms": None, "last_update": None}
    return {
        "stream": name,
        "protocol": protocol,
        "open": context.observed.streams.is_open.get(name, 0),
        "in": shown_of.get(IN, nothing),
        "out": shown_of.get(OUT, nothing),
    }
