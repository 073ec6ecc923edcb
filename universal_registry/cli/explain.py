"""`ureg explain`: what a kind, or one field of it, means."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.catalogue import one_kind
from universal_registry.cli.command import Example, command, output_option
from universal_registry.cli.grid import terminal_width
from universal_registry.cli.output import told_in_words, write, write_value
from universal_registry.kernel.errors import NotFound
from universal_registry.kernel.grid import cell, table


@command(
    "explain",
    Example("ureg explain service"),
    Example("ureg explain service.port", "one field"),
    Example("ureg explain host.interfaces.mac", "a field within it"),
    Example("ureg explain alias -o json", "with its JSON Schema"),
)
@click.argument("what", metavar="KIND[.FIELD]")
@output_option("table", "json", "yaml")
def explain(what: str, output: str) -> None:
    """What a kind, or one field of it, means."""
    word, _, path = what.partition(".")
    kind = one_kind(word)
    found = _field(kind, path) if path else kind
    if not told_in_words(output):
        write_value(found, output)
    elif path:
        _show_field(found, f"{kind['name']}.{path}")
    else:
        _show_kind(kind)


def _all_fields(kind: dict[str, Any]) -> list[dict[str, Any]]:
    added = {field["name"]: field for each in kind["classifications"] for field in each.get("fields", ())}
    own = {field["name"]: field for field in kind["fields"]}
    return list({**own, **{name: field for name, field in added.items() if name not in own}}.values())


def _field(kind: dict[str, Any], path: str) -> dict[str, Any]:
    fields = _all_fields(kind)
    found: dict[str, Any] = {}
    walked: list[str] = [str(kind["name"])]
    for step in path.split("."):
        known = {field["name"]: field for field in fields}
        if step not in known:
            raise _unknown(".".join(walked), step, tuple(known))
        found = known[step]
        walked.append(step)
        fields = found.get("fields") or found.get("items", {}).get("fields", [])
    return found


def _unknown(where: str, step: str, known: tuple[str, ...]) -> NotFound:
    from universal_registry.registry.words import near, shown

    guesses = near(step, known)
    hint = (
        f"did you mean {guesses[0]!r}?" if guesses else f"it has: {', '.join(known)}" if known else "it has no fields"
    )
    return NotFound(f"{where} has no field {shown(step)}", hint=hint, did_you_mean=guesses)


def _show_kind(kind: dict[str, Any]) -> None:
    from universal_registry.cli.yamltext import yaml_text

    write(f"{kind['name']} ({kind['plural']}): {kind['doc']}")
    write(f"{kind['tier']}, {kind['family']}{', takes no undeclared fields' if kind['strict'] else ''}")
    if kind["fields"]:
        write("\nFields")
        _show_fields(_all_fields(kind))
    write("\nClassifications")
    rows = [[cell(each["name"]), cell(each["parent"]), cell(each["doc"])] for each in kind["classifications"]]
    _show(["NAME", "PARENT", "WHAT IT IS"], rows)
    write("\nExample")
    for line in yaml_text(kind["example"]).splitlines():
        write(f"  {line}")


def _show_field(field: dict[str, Any], path: str) -> None:
    write(f"{path}: {type_of(field)}")
    write(field.get("doc", "-"))
    for word in ("default", "minimum", "maximum", "pattern", "names"):
        if word in field:
            write(f"{word}: {cell(field[word])}")
    for title, names in (("one of", field.get("enum")), ("names a", field.get("ref"))):
        if names:
            write(f"{title}: {', '.join(map(cell, names))}")
    inner = field.get("fields") or field.get("items", {}).get("fields")
    if inner:
        write("\nFields")
        _show_fields(inner)


def _show_fields(fields: list[dict[str, Any]]) -> None:
    _show(["NAME", "TYPE", "WHAT IT IS"], [[field["name"], type_of(field), cell(field.get("doc"))] for field in fields])


def type_of(field: dict[str, Any]) -> str:
    """`integer, required`, `array of string`, `string (host)`."""
    text = str(field["type"])
    if text == "array" and "items" in field:
        text += f" of {field['items']['type']}"
    words = [word for word in ("required", "secret") if field.get(word)]
    return ", ".join([text, *words])


def _show(titles: list[str], rows: list[list[str]]) -> None:
    limit = terminal_width()
    for line in table(titles, rows, limit - 2 if limit else None):
        write(f"  {line}")
