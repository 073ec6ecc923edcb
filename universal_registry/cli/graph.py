"""`ureg graph`: records and what they refer to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from universal_registry.cli.command import Example, command, namespace_option
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import fetch, split_reference
from universal_registry.cli.references import Reference, all_references, key_of
from universal_registry.cli.session import note, session
from universal_registry.kernel.errors import UsageError
from universal_registry.kernel.ids import Key
from universal_registry.kernel.visible import escaped


@command(
    "graph",
    Example("ureg graph", "every record that refers to others"),
    Example("ureg graph service pay", "what it refers to, and what refers to it"),
    Example("ureg graph -o dot | dot -Tsvg > graph.svg", "as a picture, by Graphviz"),
)
@click.argument("kind", required=False)
@click.argument("name", required=False)
@namespace_option("Where NAME is, or only records there; without it all but `system`.")
@click.option("-o", "--output", type=click.Choice(("text", "json", "dot")), default="text", help="The form.")
def graph(kind: str | None, name: str | None, namespace: str | None, output: str) -> None:
    """Show which records refer to which, by the fields that name others (`ureg explain KIND` says which those are).

    A name means a record in the same namespace, else in `default`. One that is nowhere is shown as missing.
    """
    if kind is not None:
        kind, name = split_reference(kind, name)
        if name is None:
            raise UsageError("a KIND without a NAME", hint="ureg graph KIND NAME, or ureg graph for all")
    with session() as asked:
        key = key_of(fetch(asked, kind, name, namespace)) if kind is not None and name is not None else None
        found = all_references(asked)
    if key is not None:
        found = [each for each in found if key in (each.source, each.target)]
    elif namespace is not None:
        found = [each for each in found if namespace in (each.source.namespace, each.target.namespace)]
    _write(found, key, output)


def _write(found: Sequence[Reference], key: Key | None, output: str) -> None:
    if output == "dot":
        for line in dot(found, key):
            write(line)
    elif output == "json":
        write(json_text({"references": [each.document() for each in found]}, indent=2))
    elif found:
        for line in _text(found):
            tell(line)
    else:
        note(f"{key} refers to nothing, and nothing refers to it" if key else "no record refers to another")


def _text(found: Sequence[Reference]) -> Iterator[str]:
    """A record, and below it what it refers to."""
    last = None
    for each in found:
        if each.source != last:
            yield str(each.source)
            last = each.source
        yield f"  {each.field} -> {each.target}{'' if each.there else ' (missing)'}"


def dot(found: Sequence[Reference], key: Key | None) -> Iterator[str]:
    """The same in the language of Graphviz; what is missing is dashed."""
    yield "digraph registry {"
    yield "  rankdir=LR; node [shape=box];"
    if key is not None:
        yield f"  {_quoted(str(key))} [style=bold];"
    for missing in dict.fromkeys(each.target for each in found if not each.there):
        yield f"  {_quoted(str(missing))} [style=dashed];"
    for each in found:
        yield f"  {_quoted(str(each.source))} -> {_quoted(str(each.target))} [label={_quoted(each.field)}];"
    yield "}"


def _quoted(text: str) -> str:
    """A string of Graphviz: no name can end it, begin an escape of labels, or steer a terminal."""
    return '"' + escaped(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
