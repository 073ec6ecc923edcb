"""`ureg history`: what was done to a record."""

from __future__ import annotations

from collections.abc import Iterator

import click

from universal_registry.cli.command import Example, command, namespace_option, output_option
from universal_registry.cli.output import Column, Item, Shape, emit
from universal_registry.cli.records import split_reference
from universal_registry.cli.session import PAGE, Session, session
from universal_registry.kernel.errors import UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE

_SHAPE = Shape(
    "changes",
    (
        Column("REVISION", "revision"),
        Column("OP", "op"),
        Column("AT", "at"),
        Column("ACTOR", "actor"),
        Column("CHANGED", "changed"),
        Column("MESSAGE", "message", long=True),
    ),
    lambda item: str(item["revision"]),
)


@command(
    "history",
    Example("ureg history alias gs"),
    Example("ureg history alias/gs --limit 5 -o json"),
    Example("ureg get alias gs --rev 936", "the record as it was then"),
)
@click.argument("kind")
@click.argument("name", required=False)
@namespace_option("Where; `default` if absent.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The newest N only.")
@output_option()
def history(kind: str, name: str | None, namespace: str | None, limit: int | None, output: str) -> None:
    """What was done to a record, newest first: when, by whom, which fields, and why. Also of one that was deleted."""
    kind, name = split_reference(kind, name)
    if name is None:
        raise UsageError("no NAME is given", hint="ureg history KIND NAME")
    with session() as asked:
        query = {"kind": kind, "name": name, "namespace": namespace or DEFAULT_NAMESPACE}
        emit(_lines(asked, query, limit), output, _SHAPE)


def _lines(asked: Session, query: Item, limit: int | None) -> Iterator[Item]:
    before = None
    left = limit
    while True:
        size = PAGE if left is None else min(PAGE, left)
        answer = asked.read("/v1/-/history", **query, limit=size, before=before)
        yield from answer["items"]
        before = answer["next"]
        left = None if left is None else left - len(answer["items"])
        if before is None or left == 0:
            return
