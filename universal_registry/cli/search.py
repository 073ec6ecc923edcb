"""`ureg search`: the records that hold some words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, output_option
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.cli.session import session
from universal_registry.kernel.errors import UsageError


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
    wanted = [_folded(word) for word in words]
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


def _folded(text: str) -> str:
    """The text as it is compared: without capitals, accents composed."""
    return unicodedata.normalize("NFC", text.casefold())


def places_of(item: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    """The fields that hold the words, each once; none unless every word is somewhere. `wanted`: folded."""
    texts = [(path, _folded(text)) for path, text in _texts(item)]
    places: dict[str, None] = {}
    for word in wanted:
        holding = [path for path, text in texts if word in text]
        if not holding:
            return []
        places |= dict.fromkeys(holding)
    return list(places)


def _texts(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where text stands in a record, and the text."""
    for name in ("name", "title", "description"):
        if text := item.get(name):
            yield name, text
    for key, value in item.get("labels", {}).items():
        yield f"labels.{key}", f"{key}={value}"
    yield from _values("spec", item["spec"])


def _values(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts and numbers within a value. A secret that was kept back (`$secret`, `$sealed`) has none."""
    if isinstance(value, dict):
        if not any(mark in value for mark in ("$secret", "$sealed")):
            for key, inner in value.items():
                yield from _values(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(path, inner)
    elif value is not None and not isinstance(value, bool):
        yield path, str(value)
