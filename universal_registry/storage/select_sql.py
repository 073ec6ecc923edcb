"""A selector as SQL. Values are always parameters; names of columns come from the catalogue alone."""

from __future__ import annotations

from collections.abc import Collection

from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.registry.selector import Selector, glob_parts
from universal_registry.storage.ddl import quoted

Params = list[object]


def where_sql(selector: Selector, columns: Collection[str]) -> tuple[str, Params]:
    """The condition and its parameters, for a table with these promoted columns. The kind is not part of it."""
    terms: list[str] = []
    params: Params = []

    def add(sql: str, *values: object) -> None:
        terms.append(sql)
        params.extend(values)

    if selector.namespaces:
        add(f"namespace IN ({_marks(selector.namespaces)})", *selector.namespaces)
    else:
        add("namespace <> ?", SYSTEM_NAMESPACE)
    if selector.names:
        sql = [_name_sql(glob) for glob in selector.names]
        add(f"({' OR '.join(part for part, _ in sql)})", *(value for _, value in sql))
    if selector.classifications:
        add(f"classification IN ({_marks(selector.classifications)})", *selector.classifications)
    for name, allowed in selector.labels.items():
        sql_text, values = _label_sql(name, allowed)
        add(sql_text, *values)
    for name, refused in selector.not_labels.items():
        sql_text, values = _label_sql(name, refused)
        add(f"NOT ({sql_text})", *values)
    for path, wanted in selector.fields.items():
        sql_text, values = _field_sql(path, wanted, columns)
        add(sql_text, *values)
    return " AND ".join(terms), params


def _name_sql(glob: str) -> tuple[str, str]:
    parts = glob_parts(glob)
    if not any(wild for _, wild in parts):
        return "name = ?", "".join(text for text, _ in parts)
    pattern = "".join(
        text if wild else "".join(f"[{char}]" if char in "*?[" else char for char in text) for text, wild in parts
    )
    return "name GLOB ?", pattern


def _label_sql(name: str, allowed: tuple[str, ...] | None) -> tuple[str, Params]:
    exists = "EXISTS (SELECT 1 FROM json_each(labels) WHERE key = ?"
    if allowed is None:
        return f"{exists})", [name]
    return f"{exists} AND value IN ({_marks(allowed)}))", [name, *allowed]


def _field_sql(path: str, wanted: tuple[object, ...], columns: Collection[str]) -> tuple[str, Params]:
    if path in columns and not any(isinstance(value, bool) for value in wanted):
        return f"{quoted(path)} IN ({_marks(wanted)})", list(wanted)
    json_path = "$" + "".join('."' + step.replace('"', "") + '"' for step in path.split("."))
    return f"json_extract(spec, ?) IN ({_marks(wanted)})", [json_path, *wanted]


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
