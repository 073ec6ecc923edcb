"""The tables of the kinds, from the catalogue. Text only: nothing here touches a database."""

from __future__ import annotations

from collections.abc import Iterable

from universal_registry.kernel.errors import UsageError
from universal_registry.registry.catalogue import Catalogue, Field, FieldType, Kind
from universal_registry.registry.words import ENVELOPE

GUARD_MESSAGE = "write through a front: ureg set, apply or delete"
# A column without a type keeps what it is given: 5 stays a number, "5" a text.
_SQLITE_TYPE = {FieldType.INTEGER: "INTEGER", FieldType.NUMBER: "REAL", FieldType.BOOLEAN: "INTEGER", FieldType.ANY: ""}
# A JSON value of another type than its field's gives NULL there; a column never makes a write fail. No SQL function of
# ours: PostgreSQL would parse it for every statement (measured: a third of the time of a small commit).
_TYPED = "jsonb_path_query_first(spec::jsonb, 'strict $.{0} ? (@.type() == \"{1}\")', '{{}}', true)"
_POSTGRES_COLUMN = {
    FieldType.STRING: ('text COLLATE "C"', "spec::jsonb ->> '{0}'"),
    FieldType.INTEGER: ("numeric", f"({_TYPED})::numeric"),
    FieldType.NUMBER: ("double precision", f"({_TYPED})::double precision"),
    FieldType.BOOLEAN: ("boolean", f"({_TYPED})::boolean"),
}
_POSTGRES_JSON = ("jsonb", "spec::jsonb -> '{0}'")
LONGEST_INDEXED = 2000
"""Bytes of text up to which PostgreSQL's index of a field holds it: its b-tree refuses a third of a page and more."""
_ENVELOPE_INTEGERS = frozenset({"generation", "revision", "created_revision"})
_KEY = ("namespace", "name")
_ENVELOPE_REQUIRED = frozenset({"uid", "namespace", "name", "spec", "generation", "revision", "created_revision"})


def quoted(identifier: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def kind_ddl(kind: Kind, engine: str = "sqlite") -> list[str]:
    """The statements that make the table of one kind, its indexes and its write guard, in order.

    The guard refuses every write while the table `write_guard` (made by the first migration) has no row; on PostgreSQL,
    while the variable `ureg.write` is not on.
    """
    if engine == "sqlite":
        return [_table(kind), *_indexes(kind), *_guards(kind)]
    if engine == "postgres":
        return [_postgres_table(kind), *_postgres_indexes(kind), _postgres_guard(kind), _postgres_put(kind)]
    raise UsageError(f"no tables for the engine {engine!r}", hint="one of: sqlite, postgres")


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


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def postgres_column(field: Field) -> str:
    """The definition of a field's column: a name, a type, and how it is computed."""
    sql_type, template = _POSTGRES_COLUMN.get(field.type, _POSTGRES_JSON)
    json_type = "boolean" if field.type is FieldType.BOOLEAN else "number"
    expression = template.format(field.name, json_type)
    return f"{quoted(field.name)} {sql_type} GENERATED ALWAYS AS ({expression}) STORED"


def postgres_indexes(kind: Kind, fields: Iterable[Field]) -> list[str]:
    """The indexes of those of the fields that are to have one."""
    return [
        f"CREATE INDEX {quoted(f'{kind.plural}_by_{field.name}')} ON {quoted(kind.plural)} ({quoted(field.name)})"
        + (f" WHERE {short_enough(field.name)}" if field.type is FieldType.STRING else "")
        for field in fields
        if field.index
    ]


def short_enough(column: str) -> str:
    """The condition under which a text is in the index of its column. A query must say it, or the index is not used."""
    return f"octet_length({quoted(column)}) <= {LONGEST_INDEXED}"


def _postgres_table(kind: Kind) -> str:
    lines = [_postgres_envelope_column(column) for column in ENVELOPE]
    lines += [postgres_column(field) for field in promoted_fields(kind)]
    lines.append("PRIMARY KEY (namespace, name)")
    # Updates mostly find room on their own page then.
    return f"CREATE TABLE {quoted(kind.plural)} (\n  " + ",\n  ".join(lines) + "\n) WITH (fillfactor = 80)"


def _postgres_envelope_column(column: str) -> str:
    sql_type = "bigint" if column in _ENVELOPE_INTEGERS else 'text COLLATE "C"'
    return f"{quoted(column)} {sql_type}" + (" NOT NULL" if column in _ENVELOPE_REQUIRED else "")


def _postgres_indexes(kind: Kind) -> list[str]:
    name, table = quoted(f"{kind.plural}_by_classification"), quoted(kind.plural)
    return [f"CREATE INDEX {name} ON {table} (classification)", *postgres_indexes(kind, promoted_fields(kind))]


def _postgres_guard(kind: Kind) -> str:
    return (
        f"CREATE TRIGGER write_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {quoted(kind.plural)} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION refuse_writes('{GUARD_MESSAGE}')"
    )


def _postgres_put(kind: Kind) -> str:
    """The function by which `ureg_commit` writes records of this kind: one statement, so its plan is kept."""
    parameters = ", ".join(f"p_{column} {_postgres_array(column)}" for column in ENVELOPE)
    arrays = ", ".join(f"p_{column}" for column in ENVELOPE)
    columns = ", ".join(quoted(column) for column in ENVELOPE)
    updates = ", ".join(f"{quoted(column)} = excluded.{quoted(column)}" for column in ENVELOPE if column not in _KEY)
    return (
        f"CREATE FUNCTION {quoted(f'ureg_put_{kind.plural}')} (p_tables text[], {parameters}) RETURNS void "
        "LANGUAGE plpgsql AS $$ BEGIN\n"
        f"INSERT INTO registry.{quoted(kind.plural)} ({columns})\n"
        f"SELECT {columns} FROM unnest(p_tables, {arrays}) AS given (tbl, {columns}) WHERE tbl = '{kind.plural}'\n"
        f"ON CONFLICT (namespace, name) DO UPDATE SET {updates};\nEND $$"
    )


def _postgres_array(column: str) -> str:
    return "bigint[]" if column in _ENVELOPE_INTEGERS else "text[]"
