"""`ureg search`: the records that hold some words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, output_option
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.cli.session import session
from universal_registry.kernel.errors import UsageError
from universal_registry.registry.finding import folded, places_of


@command(
    "search",
    Example("ureg search git", "in any record"),
    Example("ureg search backend pay --kind service", "both words, services only"),
    Example("ureg search tier=backend -o name", "a label is the text KEY=VALUE"),
    Example("ureg search -- -rf"),
)
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only records of this kind; repeatable.")
@namespace_option("Only there; without it all but `system`.")
@output_option()
def search(words: tuple[str, ...], kinds: tuple[str, ...], namespace: str | None, output: str) -> None:
    """Find the records that hold all of the words: in the name, the title, the description, the labels or the values of
    the spec, as a part of it, in capitals or not.

    Secrets are never looked into. What is found is written as `ureg get` writes it; the table says where each word is.
    """
    wanted = [folded(word) for word in words]
    if not all(word.strip() for word in wanted):
        raise UsageError("a word to search for is empty", hint="ureg search WORD...")
    query: dict[str, Any] = {"kind": list(kinds)} if kinds else {}
    if namespace is not None:
        query["namespace"] = namespace
    with session() as asked:
        found = (item for item in asked.items("/v1/-/records", query) if places_of(item, wanted))
        emit(found, output, _shape(wanted))


def _shape(wanted: Sequence[str]) -> Shape:
    columns = (
        Column("KIND", "kind"),
        Column("NAME", "name", whole=True),
        Column("NAMESPACE", "namespace"),
        Column("FOUND IN", lambda item: places_of(item, wanted)),
    )
    return Shape("records hold all of that", columns, lambda item: f"{item['kind']}/{item['name']}")
