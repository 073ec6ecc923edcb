"""`ureg stream` and `ureg enable-stream`: what goes over the daemon's WebSocket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, command, output_option, result_option
from universal_registry.cli.output import Column, Shape, emit, json_text, write
from universal_registry.cli.reading import read_file, read_input, text_of, value_text
from universal_registry.cli.session import note, reach, session
from universal_registry.client.http import quote
from universal_registry.kernel.errors import Invalid, Malformed, RegistryError, Unreachable, UsageError

PROTOCOLS = {"websocket": "WebSocketEndpoint", "ws": "WebSocketEndpoint", "wss": "WebSocketEndpoint",
             "stream": "StreamEndpoint"}  # fmt: skip
_OTHERS = ("http", "webhook", "nats", "peer", "file")
_AT_ONCE = 500
_SHAPE = Shape(
    "streams",
    (
        Column("STREAM", "stream", whole=True),
        Column("PROTOCOL", "protocol"),
        Column("OPEN", "open"),
        Column("IN", "in.messages"),
        Column("OUT", "out.messages"),
        Column("BYTES", lambda item: item["in"]["bytes"] + item["out"]["bytes"]),
        Column("MS", "out.latency_ms"),
        Column("LAST", lambda item: max(item["in"]["last_update"] or "", item["out"]["last_update"] or "")),
    ),
    lambda item: str(item["stream"]),
)  # fmt: skip


@click.group(
    "stream",
    cls=Group,
    examples=(
        Example("ureg stream tail kind=alias", "each change of an alias, until Ctrl-C"),
        Example("ureg enable-stream room websocket", "a stream for data of your own"),
        Example("ureg stream receive room", "what is sent into it"),
        Example("""ureg stream send room '{"hello": "world"}'"""),
        Example("ureg stream status", "who carries how much"),
    ),
)
def stream() -> None:
    """Changes and data over one WebSocket, both ways at once (docs/how-to/streams.md)."""


@stream.command(
    "tail",
    cls=Command,
    examples=(
        Example("ureg stream tail", "every change, from now on"),
        Example("ureg stream tail kind=service,labels.tier=backend --from list", "what is there first"),
    ),
)
@click.argument("selector", required=False, default="")
@click.option("--from", "start", default="now", metavar="PLACE", help="now, list, beginning, or a cursor.")
@click.option("-o", "--output", type=click.Choice(("table", "json", "ndjson")), default="table", help="The form.")
def tail(selector: str, start: str, output: str) -> None:
    """Follow changes over a stream, until Ctrl-C; reconnects and goes on where it was. Needs the daemon."""
    from universal_registry.cli.watching import run

    run(stream_client(), {"select": [selector] if selector else [], "from": start}, output)


@stream.command(
    "publish",
    cls=Command,
    examples=(
        Example("ureg stream publish records.ndjson", "each made exactly as it says, as `ureg export` writes them"),
        Example("ureg stream publish -", "from standard input; or messages, each with its type"),
    ),
)
@click.argument("file", metavar="FILE")
def publish(file: str) -> None:
    """Push the lines of FILE (- is standard input) over a stream: a record, or a message such as
    {"type": "delete", "kind": "alias", "name": "gs"}. All are tried; the first refusal is told at the end."""
    import asyncio

    name = "standard input" if file == "-" else file
    lines = text_of(read_input() if file == "-" else read_file(file), name).splitlines()
    messages = list(_messages(lines, name))
    asyncio.run(_publish(messages))
    note(f"{len(messages)} pushed")


async def _publish(messages: list[dict[str, Any]]) -> None:
    refused: RegistryError | None = None
    async with stream_client() as client:
        for start in range(0, len(messages), _AT_ONCE):
            try:
                await client.push(*messages[start : start + _AT_ONCE])
            except Unreachable:
                raise
            except RegistryError as error:
                refused = refused or error
    if refused is not None:
        raise refused


def _messages(lines: list[str], name: str) -> Iterator[dict[str, Any]]:
    from universal_registry.kernel.loader import load_json

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = load_json(line)
        except Malformed as error:
            raise Malformed(f"{name}, line {number}: {error.message}", hint=error.hint) from None
        if not isinstance(value, dict):
            raise Invalid(f"{name}, line {number}: it is no object", hint="a record, or a message with a type")
        yield value if "type" in value else {"type": "put", "record": value}


@stream.command("send", cls=Command, examples=(Example("ureg stream send room '{\"x\": 1}'"),
                                               Example("ureg stream send room @data.json")))  # fmt: skip
@click.argument("stream_id", metavar="ID")
@click.argument("data", metavar="DATA")
@result_option()
def send(stream_id: str, data: str, output: str) -> None:
    """Send DATA (JSON, @FILE, -; other text as a string) into a stream. It is stored: whoever is away gets it later."""
    value = _data(data)
    with session() as asked:
        by_request = asked.daemon is None or asked.elsewhere is not None
        told = asked.write(f"/v1/-/streams/{quote(stream_id)}", {"data": value}) if by_request else None
    if told is None:
        import asyncio

        told = asyncio.run(_send(stream_id, value))
    write(json_text(told, indent=2) if output == "json" else f"sent to {told['stream']} at revision {told['revision']}")


async def _send(stream_id: str, value: Any) -> dict[str, Any]:
    async with stream_client(stream_id) as client:
        (answer,) = await client.push({"type": "event", "stream": stream_id, "data": value})
    told: dict[str, Any] = answer["body"]
    return told


@stream.command(
    "receive",
    cls=Command,
    examples=(
        Example("ureg stream receive room", "from now on, until Ctrl-C"),
        Example("ureg stream receive room --from beginning --count 1", "the first that was ever sent"),
    ),
)
@click.argument("stream_id", metavar="ID")
@click.option("--from", "start", default="now", metavar="PLACE", help="now, beginning, or a cursor.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--cursors", is_flag=True, help="Print {cursor, data} instead of the data, to go on behind it.")
def receive(stream_id: str, start: str, count: int | None, cursors: bool) -> None:
    """Print what is sent into a stream, one JSON value a line. Needs the daemon."""
    import asyncio

    if start == "list":
        raise UsageError("data has no list", hint="--from now, beginning, or a cursor")
    reach("a stream")
    with session() as asked:
        asked.read(f"/v1/-/streams/{quote(stream_id)}")  # so that a wrong name is told of
    asyncio.run(_receive(stream_id, start, count, cursors=cursors))


async def _receive(stream_id: str, start: str, count: int | None, *, cursors: bool) -> None:
    import sys
    from contextlib import aclosing

    from universal_registry.cli.watching import until_signal

    async def told() -> None:
        left = count
        client = stream_client(stream_id)
        async with aclosing(client.stream(selector_of(stream_id), start=start)) as changes:
            async for change in changes:
                if change.op != "event":
                    continue
                data = change.data.get("payload")
                sys.stdout.write(json_text({"cursor": change.cursor, "data": data} if cursors else data) + "\n")
                sys.stdout.flush()
                left = None if left is None else left - 1
                if left == 0:
                    return

    await until_signal(told())


@stream.command("status", cls=Command, examples=(Example("ureg stream status"), Example("ureg stream status room")))
@click.argument("stream_id", metavar="ID", required=False)
@output_option()
def status(stream_id: str | None, output: str) -> None:
    """What each stream has carried since the store was made, and how many connections it has now."""
    with session(drive=False) as asked:
        path = "/v1/-/streams"
        items = [asked.read(f"{path}/{quote(stream_id)}")] if stream_id else asked.read(path)["items"]
    emit(items, output, _SHAPE, single=stream_id is not None)


@command(
    "enable-stream",
    Example("ureg enable-stream room websocket"),
    Example("ureg enable-stream room wss", "the same; it says how it is to be reached"),
)
@click.argument("stream_id", metavar="ID")
@click.argument("protocol", metavar="PROTOCOL")
def enable_stream(stream_id: str, protocol: str) -> None:
    """Make a stream for data of your own: an endpoint of that name. Twice does no harm.

    PROTOCOL is websocket (or ws, wss), or stream.
    """
    check_protocol(protocol)
    body = {"classification": PROTOCOLS[protocol], "spec": {"protocol": protocol}}
    with session() as asked:
        told = asked.request("PATCH", f"/v1/default/endpoints/{quote(stream_id)}", json=body).json()
        where = asked.daemon
    note(f"send: ureg stream send {stream_id} DATA; receive: ureg stream receive {stream_id}")
    if where is None:
        note("no daemon runs: nobody can receive until you run: ureg up")
    write(f"stream {told['record']['name']}: {told['effect']}")


def check_protocol(protocol: str) -> None:
    """Raises UsageError for what is no protocol of streams."""
    if protocol not in PROTOCOLS:
        others = f"; {protocol} is for targets: ureg target add" if protocol in _OTHERS else ""
        raise UsageError(f"{protocol!r:.40} is no protocol of streams{others}", hint=", ".join(PROTOCOLS))


def _data(word: str) -> Any:
    """JSON as the value it is, other text as a string. Raises UsageError when there is none."""
    from universal_registry.kernel.loader import load_json

    text = value_text(word)
    if not text.strip():
        raise UsageError("the data is empty", hint="give JSON, text, @FILE or -")
    try:
        return load_json(text)
    except Malformed:
        return text


def selector_of(stream_id: str) -> str:
    """What selects the data of a stream."""
    from universal_registry.registry.selector import exact_name

    return "kind=endpoint,namespace=default,name=" + exact_name(stream_id).replace(",", "\\,")


def stream_client(name: str = "") -> Any:
    """A client of the daemon that runs here. Raises Unreachable."""
    from universal_registry.client.stream import StreamClient
    from universal_registry.client.wire import TLS, trusted

    found = reach("a stream")
    sealed = any(each.startswith(TLS) for each in found.addresses())

    def addresses() -> list[str]:
        return [each.replace(TLS, "wss://") for each in found.addresses()]

    return StreamClient(addresses, token=found.token, tls=trusted(found.ca_file) if sealed else None, name=name)
