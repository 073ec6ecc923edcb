"""The tables of the kinds, from the catalogue. Text only: nothing here touches a database."""

from __future__ import annotations

from universal_registry.kernel.errors import UsageError
from universal_registry.registry.catalogue import Catalogue, Field, FieldType, Kind
from universal_registry.registry.words import ENVELOPE

GUARD_MESSAGE = "write through a front: ureg set, apply or delete"
# A column without a type keeps what it is given: 5 stays a number, "5" a text.
_SQLITE_TYPE = {FieldType.INTEGER: "INTEGER", FieldType.NUMBER: "REAL", FieldType.BOOLEAN: "INTEGER", FieldType.ANY: ""}
_ENVELOPE_INTEGERS = frozenset({"generation", "revision", "created_revision"})
_ENVELOPE_REQUIRED = frozenset({"uid", "namespace", "name", "spec", "generation", "revision", "created_revision"})


def quoted(identifier: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def kind_ddl(kind: Kind, engine: str = "sqlite") -> list[str]:
    """The statements that make the table of one kind, its indexes and its write guard, in order.

    The guard refuses every write while the table `write_guard` (made by the first migration) has no row.
    """
    if engine != "sqlite":
        raise UsageError(f"no tables for the engine {engine!r}", hint="one of: sqlite")
    return [_table(kind), *_indexes(kind), *_guards(kind)]


def promoted_fields(kind: Kind) -> tuple[Field, ...]:
    """The fields that are columns: all but those that are, or hold, a secret."""
    return tuple(field for field in kind.all_fields() if not field.holds_secret)


def records_view(catalogue: Catalogue) -> str:
    """The statement that makes the view `records`: the envelope of every record, with its kind."""
    columns = ", ".join(quoted(column) for column in ENVELOPE)
    selects = (
        f"SELECT '{kind.name}' AS kind, {columns} FROM {quoted(kind.plural)}" for kind in catalogue.kinds.values()
    )
    return "CREATE VIEW records AS\n" + "\nUNION ALL ".join(selects)


def _table(kind: Kind) -> str:
    lines = [_envelope_column(column) for column in ENVELOPE]
    lines += [_promoted_column(field) for field in promoted_fields(kind)]
    lines.append("PRIMARY KEY (namespace, name)")
    return f"CREATE TABLE {quoted(kind.plural)} (\n  " + ",\n  ".join(lines) + "\n)"


def _envelope_column(column: str) -> str:
    sql_type = "INTEGER" if column in _ENVELOPE_INTEGERS else "TEXT"
    return f"{quoted(column)} {sql_type}" + (" NOT NULL" if column in _ENVELOPE_REQUIRED else "")


def _promoted_column(field: Field) -> str:
    # A virtual column costs nothing to write and is never a second copy of the spec.
    sql_type = _SQLITE_TYPE.get(field.type, "TEXT")
    return f"{quoted(field.name)} {sql_type} GENERATED ALWAYS AS (json_extract(spec, '$.\"{field.name}\"')) VIRTUAL"


def _indexes(kind: Kind) -> list[str]:
    # Few, since each is paid for by every write: none on `revision`, which every write changes.
    columns = ["classification", *(field.name for field in promoted_fields(kind) if field.index)]
    return [
        f"CREATE INDEX {quoted(f'{kind.plural}_by_{column}')} ON {quoted(kind.plural)} ({quoted(column)})"
        for column in columns
    ]


def _guards(kind: Kind) -> list[str]:
    # AFTER, not BEFORE: the abort undoes the statement just the same, but SQLite computes the generated columns once
    # more for a BEFORE trigger, and fires both of them for an upsert (measured: a third of the speed of updates).
    return [
        f"CREATE TRIGGER {quoted(f'{kind.plural}_guard_{verb.lower()}')} AFTER {verb} ON {quoted(kind.plural)} "
        "WHEN NOT EXISTS (SELECT 1 FROM write_guard) "
        f"BEGIN SELECT RAISE(ABORT, '{GUARD_MESSAGE}'); END"
        for verb in ("INSERT", "UPDATE", "DELETE")
    ]
