"""`ureg consumer`: named readers of the change log, whose place the registry keeps."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option
from universal_registry.cli.output import Column, Shape, emit, json_text, write
from universal_registry.cli.session import session
from universal_registry.client.http import quote

_PATH = "/v1/-/consumers"
_ADD = (
    Example("ureg consumer add audit --select kind=alias", "from now on"),
    Example("ureg consumer add audit --select kind=alias --start beginning", "also if it is there already"),
)
_ACK = Example("ureg consumer ack audit 7fba6d0723f3.12.6518a70c")


def _selected(item: dict[str, Any]) -> str:
    """What it reads, in one cell."""
    return json_text(item["selector"]) if item["selector"] else "everything"


_SHAPE = Shape(
    "consumers: ureg consumer add NAME --select SELECTOR",
    (
        Column("NAME", "name", whole=True),
        Column("READS", _selected),
        Column("BEHIND", lambda item: "another history" if item["lag"] is None else item["lag"]),
        Column("CURSOR", "cursor", whole=True),
        Column("ACKED", "acked_at"),
        Column("BY", "created_by"),
    ),
    lambda item: str(item["name"]),
)


@click.group("consumer", cls=Group, examples=(_ADD[0], Example("ureg consumer ls"), _ACK))
def consumer() -> None:
    """Named readers of the change log: what one has not acknowledged comes again."""


@consumer.command("add", cls=Command, examples=_ADD)
@click.argument("name")
@click.option("--select", "select", multiple=True, metavar="SELECTOR", help="What it reads; all of several must hold.")
@click.option(
    "--start", metavar="PLACE", default="", help="now, beginning or a cursor; where it is, if absent (a new one: now)."
)
@output_option()
def add(name: str, select: tuple[str, ...], start: str, output: str) -> None:
    """Make a consumer, or change what it reads. It reads by `ureg get -w --consumer NAME`."""
    body = {"select": list(select), "start": start}
    with session() as asked:
        emit([asked.request("PUT", f"{_PATH}/{quote(name)}", json=body).json()], output, _SHAPE, single=True)


@consumer.command("ls", cls=Command, examples=(Example("ureg consumer ls"), Example("ureg consumer ls -o json")))
@output_option()
def ls(output: str) -> None:
    """All consumers, and how many revisions each has not acknowledged."""
    with session() as asked:
        emit(asked.read(_PATH)["items"], output, _SHAPE)


@consumer.command("get", cls=Command, examples=(Example("ureg consumer get audit -o yaml"),))
@click.argument("name")
@output_option()
def get(name: str, output: str) -> None:
    """One consumer."""
    with session() as asked:
        emit([asked.read(f"{_PATH}/{quote(name)}")], output, _SHAPE, single=True)


@consumer.command("ack", cls=Command, examples=(_ACK,))
@click.argument("name")
@click.argument("cursor")
@output_option()
def ack(name: str, cursor: str, output: str) -> None:
    """Everything up to CURSOR has been dealt with: the next watch begins behind it. An older one changes nothing."""
    with session() as asked:
        answer = asked.write(f"{_PATH}/{quote(name)}/ack", None, cursor=cursor)
        emit([answer], output, _SHAPE, single=True)


@consumer.command("rm", cls=Command, examples=(Example("ureg consumer rm audit"),))
@click.argument("name")
def rm(name: str) -> None:
    """Forget a consumer and its place."""
    with session() as asked:
        asked.request("DELETE", f"{_PATH}/{quote(name)}")
    write(f"consumer {name} removed")
