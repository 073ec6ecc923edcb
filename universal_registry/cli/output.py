"""How what was read is written: tables for people, and forms whose shape is a promise for machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from universal_registry.cli.grid import escaped, terminal_width
from universal_registry.kernel.grid import Column as Column  # noqa: PLC0414 - shapes are made of these
from universal_registry.kernel.grid import table_of

Item = dict[str, Any]
TABLES = ("table", "wide")
"""The forms for people: cut to a terminal's width, or never cut."""
QUERY: ContextVar[str | None] = ContextVar("query", default=None)
"""What `--query` said."""


class Shape(NamedTuple):
    """How items of one sort are written. `what`: their plural; `tsv`: the columns of `-o tsv`, if others."""

    what: str
    columns: Sequence[Column]
    name: Callable[[Item], str]
    tsv: Sequence[Column] = ()


def write(text: str) -> None:
    """A line of data, on standard output."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """A line for people about what was done, on standard output: nothing that it quotes can steer a terminal."""
    write(escaped(text))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON as it is, in UTF-8."""
    import json

    separators = (",", ":") if indent is None else None
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)


def emit(items: Iterable[Item], output: str, shape: Shape, *, single: bool = False) -> None:
    """Write the items. `single`: there is one, asked for by name; then JSON is that object and no array."""
    if (expression := QUERY.get()) is not None:
        found = list(items)
        _query(found[0] if single else found, expression, output)
    elif output in TABLES:
        _table(list(items), shape, wide=output != TABLES[0])
    elif output == "json":
        found = list(items)
        write(json_text(found[0] if single else found, indent=2))
    else:
        for number, item in enumerate(items):
            write(_one(item, output, shape, number))


def told_in_words(output: str) -> bool:
    """Whether an answer that is no list is told to people: neither a form nor a query asks for its value."""
    return output in (*TABLES, "text") and QUERY.get() is None


def _query(value: Any, expression: str, output: str) -> None:
    from universal_registry.cli.querying import answer

    answer(value, expression, output)


def _one(item: Item, output: str, shape: Shape, number: int) -> str:
    if output == "ndjson":
        return json_text(item)
    if output == "name":
        name = shape.name(item)
        return escaped(name) if sys.stdout.isatty() else name
    if output == "tsv":
        return "\t".join(tsv_cell(column.of(item)) for column in shape.tsv or shape.columns)
    from universal_registry.cli.yamltext import yaml_text

    return ("---\n" if number else "") + yaml_text(item).rstrip("\n")


def tsv_cell(value: Any) -> str:
    """A value as a cell of TSV: no tab and no line end in it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return escaped(value)
    return escaped(json_text(value))


def _table(items: list[Item], shape: Shape, *, wide: bool) -> None:
    if not items:
        from universal_registry.cli.session import note

        note(f"no {shape.what}")
        return
    columns = [column._replace(long=False) for column in shape.columns] if wide else shape.columns
    for line in table_of(items, columns, None if wide else terminal_width()):
        write(line)


def write_value(value: Any, output: str) -> None:
    """One answer that is no list, as JSON, NDJSON, YAML, or TSV (a dotted path and a value a line)."""
    if (expression := QUERY.get()) is not None:
        _query(value, expression, output)
    elif output == "yaml":
        from universal_registry.cli.yamltext import yaml_text

        sys.stdout.write(yaml_text(value))
    elif output == "tsv":
        for path, leaf in _leaves(value, ""):
            write(f"{escaped(path)}\t{tsv_cell(leaf)}")
    else:
        write(json_text(value, indent=2 if output == "json" else None))


def _leaves(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
