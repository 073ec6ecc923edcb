"""A selector as SQL for PostgreSQL. Values are always parameters; names of columns come from the catalogue alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.registry.catalogue import Field, FieldType
from universal_registry.registry.selector import Selector, glob_parts
from universal_registry.storage.ddl import LONGEST_INDEXED, quoted, short_enough

_LIKE = {"*": "%", "?": "_"}


class Condition:
    """A condition that grows, and its parameters."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.params: list[Any] = []

    def mark(self, value: Any, sql_type: str = "") -> str:
        """The placeholder of one more parameter."""
        self.params.append(value)
        return f"${len(self.params)}" + (f"::{sql_type}" if sql_type else "")

    def any_text(self, values: Iterable[str]) -> str:
        """`ANY(...)` of texts. A text with NUL is never stored, so it is left out."""
        return f"ANY({self.mark([value for value in values if chr(0) not in value], 'text[]')})"

    @property
    def sql(self) -> str:
        return " AND ".join(self.terms) or "true"


def where_postgres(selector: Selector, columns: Mapping[str, Field]) -> Condition:
    """The condition for a table with these promoted columns. The kind is not part of it. It agrees with `matches`."""
    where = Condition()
    if selector.namespaces:
        where.terms.append(f"namespace = {where.any_text(selector.namespaces)}")
    else:
        where.terms.append(f"namespace <> '{SYSTEM_NAMESPACE}'")
    if selector.names:
        where.terms.append(_names(where, selector.names))
    if selector.classifications:
        where.terms.append(f"classification = {where.any_text(selector.classifications)}")
    for name, allowed in selector.labels.items():
        where.terms.append(_label(where, name, allowed))
    for name, refused in selector.not_labels.items():
        where.terms.append(f"NOT {_label(where, name, refused)}")
    for path, wanted in selector.fields.items():
        column = columns.get(path)
        typed = column is not None and column.type in _COLUMNS
        where.terms.append(_column(where, column, wanted) if column and typed else _path(where, path, wanted))
    return where


def _names(where: Condition, globs: Sequence[str]) -> str:
    exact, alternatives = [], []
    for glob in globs:
        parts = glob_parts(glob)
        if not any(wild for _, wild in parts):
            exact.append("".join(text for text, _ in parts))
        elif chr(0) not in glob:
            pattern = "".join(_LIKE[text] if wild else _literal(text) for text, wild in parts)
            alternatives.append(f"name LIKE {where.mark(pattern, 'text')}")
    if exact:
        alternatives.append(f"name = {where.any_text(exact)}")
    return f"({' OR '.join(alternatives)})" if alternatives else "false"


def _literal(text: str) -> str:
    return "".join(f"\\{char}" if char in "\\%_" else char for char in text)


def _label(where: Condition, name: str, allowed: tuple[str, ...] | None) -> str:
    if chr(0) in name:
        return "false"
    value = f"labels::jsonb ->> {where.mark(name, 'text')}"
    if allowed is None:
        return f"({value} IS NOT NULL)"
    return f"coalesce({value} = {where.any_text(allowed)}, false)"


# --- fields ---------------------------------------------------------------------------------------------------------


def _column(where: Condition, field: Field, wanted: Sequence[Any]) -> str:
    """By a column of the field's own type; a value of another type equals none. As in Python, true is 1."""
    sql_type, of_that_type = _COLUMNS[field.type]
    column = quoted(field.name)
    values = [value for each in wanted for value in of_that_type(each)]
    sql = f"{column} = ANY({where.mark(values, f'{sql_type}[]')})"
    if field.index and sql_type == "text" and all(len(value.encode()) <= LONGEST_INDEXED for value in values):
        sql = f"({sql} AND {short_enough(field.name)})"
    return f"({sql} OR {column} IS NULL)" if None in wanted else sql


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) and chr(0) not in value else []


def _numbers(value: Any) -> list[str]:
    if isinstance(value, bool):
        return [str(int(value))]
    return [repr(value)] if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else []


def _booleans(value: Any) -> list[bool]:
    return [bool(value)] if isinstance(value, int | float) and value in (0, 1) else []


_COLUMNS: dict[FieldType, tuple[str, Callable[[Any], Sequence[Any]]]] = {
    FieldType.STRING: ("text", _texts),
    FieldType.INTEGER: ("numeric", _numbers),
    FieldType.NUMBER: ("numeric", _numbers),
    FieldType.BOOLEAN: ("boolean", _booleans),
}


def _path(where: Condition, path: str, wanted: Sequence[Any]) -> str:
    """By the JSON itself. `strict`: a step goes into an object only, as in Python."""
    if chr(0) in path:
        return "true" if None in wanted else "false"
    steps = "strict $" + "".join("." + json.dumps(step, ensure_ascii=False) for step in path.split("."))
    value = f"jsonb_path_query_first(spec::jsonb, {where.mark(steps, 'text')}::jsonpath, '{{}}', true)"
    values = [text for each in wanted for text in _json_texts(each)]
    sql = f"coalesce({value} = ANY({where.mark(values, 'text[]')}::jsonb[]), false)"
    return f"({sql} OR coalesce({value}, 'null') = 'null')" if None in wanted else sql


def _json_texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [json.dumps(text, ensure_ascii=False) for text in _texts(value)]
    return _numbers(value) + [json.dumps(flag) for flag in _booleans(value)]
