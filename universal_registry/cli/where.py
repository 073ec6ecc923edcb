"""`ureg where`: which targets have a record, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, output_option
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.cli.session import session
from universal_registry.cli.targets import short_target

_MARKS = {
    "arrived": "●",
    "running": "●",
    "waiting": "◐",
    "received": "◐",
    "held": "○",
    "dead": "✕",
    "cancelled": "✕",
    "not-routed": "·",
}
_SHAPE = Shape(
    "targets: ureg target add NAME URL --select SELECTOR",
    (
        Column("RECORD", lambda item: f"{item['kind']}/{item['namespace']}/{item['name']}"),
        Column("TARGET", lambda item: short_target(item["target"])),
        Column("STATE", lambda item: f"{_MARKS.get(item['state'], '?')} {item['state']}"),
        Column("HAS", "arrived_revision"),
        Column("NEWEST", "wanted_revision"),
        Column("ROUTE", "route"),
        Column("WHY", "reason", long=True),
        Column("NEXT TRY", "next_at"),
    ),
    lambda item: short_target(str(item["target"])),
    (
        Column("TARGET", lambda item: short_target(item["target"])),
        Column("STATE", "state"),
        Column("HAS", "arrived_revision"),
        Column("NEWEST", "wanted_revision"),
        Column("WHY", "reason"),
    ),
)


@command(
    "where",
    Example("ureg where gs", "every record of that name"),
    Example("ureg where alias/gs"),
    Example("ureg where package/g++ -n build-host -o json"),
)
@click.argument("name", metavar="[KIND/]NAME")
@namespace_option("Only the record there.")
@output_option()
def where(name: str, namespace: str | None, output: str) -> None:
    """Which targets have a record in its newest revision, and what keeps it from the others; and on which machines it
    runs that put what they follow in its places (ureg follow --apply)."""
    with session() as asked:
        found = asked.read("/v1/-/where", name=name, namespace=namespace)["items"]
    emit(_rows(found), output, _SHAPE)


def _rows(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row per record and target."""
    for record in records:
        for target in record["targets"]:
            yield {key: record[key] for key in ("kind", "namespace", "name")} | target
