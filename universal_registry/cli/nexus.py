"""`ureg nexus`: studios, which keep a copy of records as components of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from universal_registry.cli.command import Command, Decorator, Example, Group, namespace_option, output_option
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.cli.reading import read_file, read_input, text_of
from universal_registry.cli.session import Session, note, session, spoken, warn
from universal_registry.client.errors import class_of
from universal_registry.client.nexus import STUDIO, Studio, follow
from universal_registry.kernel.errors import Invalid, RegistryError

_CHANGES = Shape(
    "changes",
    (
        Column("OP", "op"),
        Column("COMPONENT", "component", whole=True),
        Column("ENTRY", "entry", whole=True),
        Column("REVISION", "revision"),
        Column("DIRECTION", "direction"),
    ),
    lambda item: str(item["component"]),
)
_BINDINGS = Shape(
    "bindings: ureg nexus bind ENTRY COMPONENT",
    (
        Column("BINDING", "binding", whole=True),
        Column("STUDIO", "studio"),
        Column("ENTRY", "entry", whole=True),
        Column("COMPONENTS", lambda item: ",".join(item["components"]), whole=True),
        Column("DIRECTION", "direction"),
        Column("PROTOCOL", "protocol"),
    ),
    lambda item: str(item["binding"]),
)
_HISTORY = Shape(
    "exchanges",
    (
        Column("ENTRY", "entry", whole=True),
        Column("COMPONENT", "component", whole=True),
        Column("DIRECTION", "direction"),
        Column("WAY", "way"),
        Column("REVISION", "revision"),
        Column("STATUS", "status"),
        Column("REASON", "reason", long=True),
        Column("AT", "created_at"),
    ),
    lambda item: str(item["entry"]),
)


def _studio_option() -> Decorator:
    return click.option("--studio", default=STUDIO, show_default=True, metavar="NAME", help="Which studio.")


@click.group(
    "nexus",
    cls=Group,
    examples=(
        Example("ureg nexus bind alias/gs component-7", "a record here is a component there"),
        Example("ureg nexus sync", "what the studio does not know yet; then it knows"),
        Example("ureg nexus sync --push changed.ndjson", "and what it has changed"),
        Example("ureg nexus stream", "the same as it happens, until Ctrl-C"),
        Example("ureg nexus history alias/gs"),
    ),
)
def nexus() -> None:
    """Studios: programs that keep a copy of records, and pull, push and follow (docs/how-to/studio.md)."""


@nexus.command(
    "bind",
    cls=Command,
    examples=(
        Example("ureg nexus bind alias/gs component-7", "both ways"),
        Example("ureg nexus bind alias/gs component-7 unidirectional", "the studio is told, and may not push"),
        Example("ureg nexus bind alias/gs a,b,c multicast", "one record, three components"),
    ),
)
@click.argument("entry", metavar="[KIND/]NAME")
@click.argument("component", metavar="COMPONENT")
@click.argument("direction", required=False, default="bidirectional", metavar="[DIRECTION]")
@_studio_option()
@namespace_option("Of the record.")
@output_option()
def bind(entry: str, component: str, direction: str, studio: str, namespace: str | None, output: str) -> None:
    """Say which component of a studio a record is, and which way changes go: unidirectional, bidirectional (if absent),
    multicast (several components, with commas) or broadcast (every studio is told)."""
    with session() as asked:
        bound = _bound(asked, entry, component, direction, studio, namespace)
    emit([bound], output, _BINDINGS, single=True)


def _bound(
    asked: Session, entry: str, component: str, direction: str, studio: str, namespace: str | None
) -> dict[str, Any]:
    names = component.split(",") if direction == "multicast" else [component]
    try:
        bound = Studio(asked.caller, studio).bind(entry, *names, direction=direction, namespace=namespace)
    except RegistryError as error:
        raise spoken(error) from None
    warn(bound.pop("warnings"))
    return bound


@nexus.command(
    "bindings", cls=Command, examples=(Example("ureg nexus bindings"), Example("ureg nexus bindings -o tsv"))
)
@_studio_option()
@output_option()
def bindings(studio: str, output: str) -> None:
    """Which record is which component of a studio."""
    with session() as asked:
        emit(Studio(asked.caller, studio).bindings(), output, _BINDINGS)


@nexus.command("unbind", cls=Command, examples=(Example("ureg nexus unbind nexus-0a1b2c3d4e5f6071"),))
@click.argument("binding")
@_studio_option()
def unbind(binding: str, studio: str) -> None:
    """Forget a binding. The record stays, and so does the component."""
    with session() as asked:
        Studio(asked.caller, studio).unbind(binding)
    note(f"binding {binding} removed")


@nexus.command(
    "sync",
    cls=Command,
    examples=(
        Example("ureg nexus sync -o ndjson", "what has changed since the last sync; then it is acknowledged"),
        Example("ureg nexus sync --push changed.ndjson", "push what the studio has changed, too"),
        Example("ureg nexus sync alias/gs component-7 bidirectional", "bind, and sync"),
        Example("ureg nexus sync --full -o ndjson", "everything that is bound, as it is now"),
    ),
)
@click.argument("entry", required=False, metavar="[[KIND/]NAME")
@click.argument("component", required=False, metavar="COMPONENT")
@click.argument("direction", required=False, default="bidirectional", metavar="[DIRECTION]]")
@click.option("--push", "pushed", metavar="FILE", help="NDJSON of {component, spec, base}; - is standard input.")
@click.option("--cursor", default="", metavar="CURSOR", help="Acknowledge up to there, and go on behind it.")
@click.option("--full", is_flag=True, help="Everything that is bound, as it is now.")
@click.option("--no-ack", is_flag=True, help="Acknowledge nothing: it comes again.")
@_studio_option()
@namespace_option("Of the record.")
@output_option()
def sync(
    entry: str | None,
    component: str | None,
    direction: str,
    pushed: str | None,
    cursor: str,
    full: bool,
    no_ack: bool,
    studio: str,
    namespace: str | None,
    output: str,
) -> None:
    """Pull what a studio does not know yet, and push what it has changed. What was written out is acknowledged.

    A push is merged by field against the revision in `base`; where both have changed a field, nothing of it is written,
    the conflict is told, and the exit code is 5.
    """
    if entry is not None and component is None:
        raise click.UsageError("a record is named, and no component")
    pushes = list(_pushes(pushed)) if pushed is not None else []
    with session() as asked:
        if entry is not None and component is not None:
            _bound(asked, entry, component, direction, studio, namespace)
        place = Studio(asked.caller, studio)
        answers = (
            list(place.exchanges(*pushes, cursor=cursor, full=full))
            if not no_ack
            else [place.sync(*pushes, cursor=cursor, full=full)]
        )
        emit([change for each in answers for change in each["changes"]], output, _CHANGES)
        if not no_ack:
            _flush()
            place.sync(cursor=answers[-1]["cursor"])
    _conclude([each for answer in answers for each in answer["pushed"]])


def _flush() -> None:
    import sys

    sys.stdout.flush()  # what could not be written is not acknowledged


def _pushes(file: str) -> Iterator[dict[str, Any]]:
    from universal_registry.kernel.loader import load_ndjson

    name = "standard input" if file == "-" else file
    text = text_of(read_input() if file == "-" else read_file(file), name)
    for number, value in enumerate(load_ndjson(text), 1):
        if not isinstance(value, dict):
            raise Invalid(
                f"{name}, line {number}: it is no object", hint='{"component": ..., "spec": {...}, "base": N}'
            )
        yield value


def _conclude(pushed: list[dict[str, Any]]) -> None:
    """Say what became of the pushes. Raises the first refusal."""
    refused = [each for each in pushed if each["status"] != "ok"]
    if pushed:
        note(f"{len(pushed) - len(refused)} of {len(pushed)} pushed")
    for each in refused[1:]:
        note(f"{each['component']}: {each['detail']}")
    if refused:
        first = refused[0]
        raise class_of(first["status"])(f"{first['component']}: {first['detail']}")


@nexus.command(
    "stream",
    cls=Command,
    examples=(Example("ureg nexus stream -o ndjson"), Example("ureg nexus stream alias/gs component-7 websocket")),
)
@click.argument("entry", required=False, metavar="[[KIND/]NAME")
@click.argument("component", required=False, metavar="COMPONENT")
@click.argument("protocol", required=False, default="websocket", metavar="[PROTOCOL]]")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@_studio_option()
@namespace_option("Of the record.")
@output_option("ndjson", "tsv", default="ndjson")
def stream(
    entry: str | None,
    component: str | None,
    protocol: str,
    count: int | None,
    studio: str,
    namespace: str | None,
    output: str,
) -> None:
    """Follow what changes for a studio, over one WebSocket, until Ctrl-C; needs the daemon.

    With a record and a component: bind them, if they are not, note the protocol (websocket, ws, wss or stream), make a
    stream of the component's name for data of its own, and return.
    """
    if entry is None:
        import asyncio

        asyncio.run(_follow(studio, count, output))
        return
    if component is None:
        raise click.UsageError("a record is named, and no component")
    from universal_registry.cli.stream import check_protocol

    check_protocol(protocol)
    with session() as asked:
        enabled = Studio(asked.caller, studio).enable_streaming(entry, component, protocol, namespace)
    warn(enabled.pop("warnings"))
    emit([enabled], "json" if output == "ndjson" else output, _BINDINGS, single=True)


async def _follow(studio: str, count: int | None, output: str) -> None:
    from contextlib import aclosing

    from universal_registry.cli.stream import stream_client
    from universal_registry.cli.watching import until_signal

    async def told() -> None:
        left = count
        async with stream_client() as client, aclosing(follow(client, studio)) as changes:
            async for change in changes:
                emit([change], output, _CHANGES)
                _flush()
                left = None if left is None else left - 1
                if left == 0:
                    return

    await until_signal(told())


@nexus.command("history", cls=Command, examples=(Example("ureg nexus history"), Example("ureg nexus history alias/gs")))
@click.argument("entry", required=False, metavar="[[KIND/]NAME]")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, metavar="N", help="At most.")
@_studio_option()
@namespace_option("Of the record.")
@output_option()
def history(entry: str | None, limit: int, studio: str, namespace: str | None, output: str) -> None:
    """What was exchanged with a studio, newest first."""
    with session(drive=False) as asked:
        emit(Studio(asked.caller, studio).history(entry, limit, namespace), output, _HISTORY)
