"""`ureg kinds` and `ureg classes`: what the catalogue knows."""

from __future__ import annotations

import click

from universal_registry.cli.catalogue import all_classes, all_kinds, one_kind
from universal_registry.cli.command import Example, command, output_option
from universal_registry.cli.output import Column, Shape, emit

_KINDS = Shape(
    "kinds",
    (
        Column("KIND", "name", whole=True),
        Column("PLURAL", "plural"),
        Column("TIER", "tier"),
        Column("FAMILY", "family"),
        Column("RECORDS", "records"),
        Column("WHAT IT IS", "doc"),
    ),
    lambda item: str(item["name"]),
)
_CLASSES = Shape(
    "classifications",
    (
        Column("CLASSIFICATION", "name", whole=True),
        Column("KIND", "kind"),
        Column("PARENT", "parent"),
        Column("WHAT IT IS", "doc"),
    ),
    lambda item: str(item["name"]),
)


@command("kinds", Example("ureg kinds"), Example("ureg kinds -o name"))
@output_option()
def kinds(output: str) -> None:
    """List the kinds of record, and how many records there are of each."""
    emit(all_kinds(), output, _KINDS)


@command("classes", Example("ureg classes", "all"), Example("ureg classes service", "those of a kind"))
@click.argument("kind", required=False)
@output_option()
def classes(kind: str | None, output: str) -> None:
    """List the classifications. A query for one finds those below it too."""
    emit(one_kind(kind)["classifications"] if kind else all_classes(), output, _CLASSES)
