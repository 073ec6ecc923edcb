from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from universal_registry.kernel.errors import UsageError
from universal_registry.registry.catalogue import Kind, load_catalogue
from universal_registry.registry.words import ENVELOPE
from universal_registry.storage.ddl import GUARD_MESSAGE, kind_ddl, promoted_fields, quoted, records_view

CATALOGUE = load_catalogue()
KINDS = list(CATALOGUE.kinds.values())
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def schema() -> list[str]:
    tables = [statement for kind in KINDS for statement in kind_ddl(kind)]
    return ["CREATE TABLE write_guard (open INTEGER)", *tables, records_view(CATALOGUE)]


def create(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    with db:
        for statement in schema():
            db.execute(statement)
    return db


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    db = create(tmp_path_factory.mktemp("ddl") / "store.db")
    yield db
    db.close()


@pytest.fixture
def db(shared: apsw.Connection) -> Iterator[apsw.Connection]:
    shared.execute("BEGIN")
    shared.execute("INSERT INTO write_guard VALUES (1)")
    yield shared
    shared.execute("ROLLBACK")


def insert(kind: Kind, name: str, spec: Any, verb: str = "INSERT", **more: Any) -> tuple[str, list[Any]]:
    row = dict.fromkeys(ENVELOPE) | {
        "uid": name.encode().hex(),
        "namespace": "default",
        "name": name,
        "spec": json.dumps(spec),
        "generation": 1,
        "revision": 1,
        "created_revision": 1,
        **more,
    }
    return f"{verb} INTO {quoted(kind.plural)} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(
        row.values()
    )


def columns_of(db: apsw.Connection, table: str) -> dict[str, tuple[str, int]]:
    return {row[1]: (row[2], row[6]) for row in db.execute(f"PRAGMA table_xinfo({quoted(table)})")}


@every_kind
def test_every_kind_is_a_table_with_envelope_and_virtual_columns(shared: apsw.Connection, kind: Kind) -> None:
    columns = columns_of(shared, kind.plural)
    assert tuple(columns)[: len(ENVELOPE)] == ENVELOPE
    assert all(hidden == 0 for _, hidden in list(columns.values())[: len(ENVELOPE)])
    promoted = list(columns)[len(ENVELOPE) :]
    assert promoted == [field.name for field in promoted_fields(kind)]
    assert all(columns[name][1] == 2 for name in promoted)  # 2: virtual, so never a second copy
    assert not {path[0] for path in kind.secret_paths} & set(columns)


@every_kind
def test_the_example_comes_back_through_its_columns(db: apsw.Connection, kind: Kind) -> None:
    spec = kind.example["spec"]
    db.execute(*insert(kind, kind.example["name"], spec))
    for field in promoted_fields(kind):
        ((value,),) = db.execute(f"SELECT {quoted(field.name)} FROM {quoted(kind.plural)}")
        wanted = spec.get(field.name)
        if isinstance(wanted, dict | list):
            assert json.loads(value) == wanted
        else:
            assert value == wanted, field.name


def test_columns_have_the_types_of_their_fields(db: apsw.Connection) -> None:
    service, setting, alias = (CATALOGUE.kind(name) for name in ("service", "setting", "alias"))
    assert columns_of(db, "services")["port"][0].startswith("INTEGER")
    assert columns_of(db, "animations")["fps"][0].startswith("REAL")
    assert columns_of(db, "services")["version"][0].startswith("TEXT")
    db.execute(*insert(service, "a", {"port": 80, "version": "1.0"}))
    db.execute(*insert(alias, "a", {"global": True}))
    for name, value in (("n", 5), ("t", "5"), ("o", {"a": 1})):
        db.execute(*insert(setting, name, {"value": value}))
    assert list(db.execute("SELECT port, version FROM services WHERE port < 443")) == [(80, "1.0")]
    assert list(db.execute('SELECT "global" FROM aliases')) == [(1,)]
    assert list(db.execute("SELECT value FROM settings ORDER BY name")) == [(5,), ('{"a":1}',), ("5",)]


def test_a_record_is_found_by_host_through_the_index(db: apsw.Connection) -> None:
    db.execute(*insert(CATALOGUE.kind("service"), "pay", {"port": 8443, "host": "h5"}))
    assert list(db.execute("SELECT name, port FROM services WHERE host = 'h5'")) == [("pay", 8443)]
    plan = " ".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN SELECT name FROM services WHERE host = 'h5'"))
    assert "USING INDEX services_by_host" in plan
    plan = " ".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN SELECT 1 FROM hosts WHERE classification = 'x'"))
    assert "USING INDEX hosts_by_classification" in plan or "USING COVERING INDEX hosts_by_classification" in plan


def test_indexes_are_the_key_the_classification_and_the_declared(shared: apsw.Connection) -> None:
    for kind in KINDS:
        made = {row[1] for row in shared.execute(f"PRAGMA index_list({quoted(kind.plural)})")}
        declared = {f"{kind.plural}_by_{field.name}" for field in kind.all_fields() if field.index}
        assert made == {f"sqlite_autoindex_{kind.plural}_1", f"{kind.plural}_by_classification"} | declared


def test_names_are_compared_byte_by_byte(db: apsw.Connection) -> None:
    variable = CATALOGUE.kind("env_var")
    for name in ("HTTP_PROXY", "http_proxy", "..", "[", "g++", "x; DROP TABLE env_vars", "é", "e\u0301", "😀" * 63):
        db.execute(*insert(variable, name, {}))
    assert list(db.execute("SELECT count(*) FROM env_vars WHERE name = 'HTTP_PROXY'")) == [(1,)]
    assert list(db.execute("SELECT count(*) FROM env_vars")) == [(9,)]
    with pytest.raises(apsw.ConstraintError, match="UNIQUE"):
        db.execute(*insert(variable, "..", {}))


def test_an_upsert_by_namespace_and_name_works(db: apsw.Connection) -> None:
    kind = CATALOGUE.kind("service")
    for port in (1, 2):
        statement, values = insert(kind, "pay", {"port": port})
        db.execute(f"{statement} ON CONFLICT (namespace, name) DO UPDATE SET spec = excluded.spec", values)
    assert list(db.execute("SELECT name, port FROM services")) == [("pay", 2)]


@every_kind
def test_plain_sql_cannot_write_past_the_log(shared: apsw.Connection, kind: Kind) -> None:
    table = quoted(kind.plural)
    with shared:
        shared.execute("INSERT INTO write_guard VALUES (1)")
        shared.execute(*insert(kind, "kept", {}, "INSERT OR REPLACE"))
        shared.execute("DELETE FROM write_guard")
    for attempt in (
        insert(kind, "new", {}),
        insert(kind, "new", {}, "INSERT OR IGNORE"),
        insert(kind, "kept", {"x": 1}, "INSERT OR REPLACE"),
        (f"UPDATE {table} SET spec = '{{}}', title = 'changed'", []),
        (f"UPDATE OR IGNORE {table} SET title = 'changed'", []),
        (f"DELETE FROM {table}", []),
    ):
        with pytest.raises(apsw.ConstraintError, match=GUARD_MESSAGE):
            shared.execute(*attempt)
    assert list(shared.execute(f"SELECT name, title, spec FROM {table}")) == [("kept", None, "{}")]


def test_the_records_view_shows_the_envelope_of_all_kinds(db: apsw.Connection) -> None:
    for kind in KINDS:
        db.execute(*insert(kind, f"one-{kind.name}", kind.example["spec"], labels='{"a":"b"}'))
    rows = list(db.execute("SELECT * FROM records WHERE name LIKE 'one-%'"))
    assert [(row[0], row[3]) for row in rows] == [(kind.name, f"one-{kind.name}") for kind in KINDS]
    assert [column[0] for column in db.execute("SELECT * FROM records").get_description()] == ["kind", *ENVELOPE]


def test_another_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="no tables for the engine 'oracle'"):
        kind_ddl(KINDS[0], "oracle")


needs_sqlite3 = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 command is not installed")


def shell(database: Path, sql: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sqlite3", str(database)], input=sql, capture_output=True, text=True, check=False)


@needs_sqlite3
def test_the_systems_sqlite3_makes_the_whole_schema(tmp_path: Path) -> None:
    statements = ";\n".join(["BEGIN", *schema(), "COMMIT", "SELECT count(*) FROM records;"])
    done = shell(tmp_path / "by-shell.db", statements)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@needs_sqlite3
def test_the_systems_sqlite3_reads_everything_and_is_refused_writes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    db = create(path)
    with db:
        db.execute("INSERT INTO write_guard VALUES (1)")
        for kind in KINDS:
            db.execute(*insert(kind, kind.example["name"], kind.example["spec"]))
        db.execute("DELETE FROM write_guard")
    db.close()
    assert shell(path, "SELECT name, port FROM services WHERE host = 'h5';").stdout == "pay|8443\n"
    assert shell(path, "SELECT count(*), count(DISTINCT kind) FROM records;").stdout == "42|42\n"
    for kind in KINDS:
        done = shell(path, f"SELECT * FROM {quoted(kind.plural)};")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(kind.example["name"].encode().hex())
    done = shell(path, "DELETE FROM services;")
    assert done.returncode != 0
    assert GUARD_MESSAGE in done.stderr
    assert shell(path, "PRAGMA integrity_check; SELECT count(*) FROM services;").stdout == "ok\n1\n"
