"""SQL lives in `.sql` files: named queries, and numbered migrations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_QUERY = re.compile(r"^-- name: (\w+)\n((?:--.*\n)*)", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_(\w+)\.sql")


class Migration(NamedTuple):
    """One step of a schema: applied whole, in a transaction of its own."""

    number: int
    name: str
    sql: str


@cache
def load_queries(path: str) -> Mapping[str, str]:
    """The queries of `sql/<path>` by name. A query starts at `-- name: <name>`, with its description as comments."""
    text = (files("universal_registry.storage") / "sql" / path).read_text(encoding="utf-8")
    marks = list(_QUERY.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark[1]: text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)}


@cache
def load_migrations(store: str, engine: str) -> tuple[Migration, ...]:
    """The migrations of a store ("registry" or "propagation") for an engine, in order, without gaps."""
    folder = files("universal_registry.storage") / "migrations" / store / engine
    matches = ((entry, _MIGRATION.fullmatch(entry.name)) for entry in folder.iterdir())
    found = sorted(
        Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")) for entry, match in matches if match
    )
    numbers = [step.number for step in found]
    assert numbers == list(range(1, len(found) + 1)), f"migrations of {store}/{engine} are not numbered 1..n: {numbers}"
    return tuple(found)
