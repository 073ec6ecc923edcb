"""patch, history, get --rev, import and db, as people run them: with a daemon and without."""

from __future__ import annotations

import json
import re

import apsw

from universal_registry.storage.sqlfiles import load_migrations


def test_a_record_and_its_past(ureg):
    ureg("set", "service", "pay", "port=8080")
    steps = (
        '[{"op": "test", "path": "/spec/port", "value": 8080}, {"op": "replace", "path": "/spec/port", "value": 8443}]'
    )
    done = ureg("patch", "service", "pay", steps, "-m", "TLS")
    assert done.stdout == "service/default/pay updated, revision 2\n"
    assert "step 0" in ureg("patch", "service", "pay", steps, code=6).stderr
    ureg("patch", "service", "pay", '{"spec": {"version": "2"}}', "--if-revision", "2")
    ureg("patch", "service", "pay", '{"spec": {"version": "3"}}', "--if-revision", "2", code=5)
    ureg("delete", "service", "pay")
    assert ureg("history", "service", "pay", "-o", "name").stdout.split() == ["4", "3", "2", "1"]
    found = ureg.json("history", "service/pay", "--limit", "3")
    assert [(each["op"], each["changed"]) for each in found] == [
        ("delete", []),
        ("put", ["spec.version"]),
        ("put", ["spec.port"]),
    ]
    assert found[2]["message"] == "TLS"
    assert "TLS" in ureg("history", "service", "pay").stdout
    assert ureg.json("get", "service", "pay", "--rev", "2")["spec"] == {"port": 8443}
    assert "deleted in revision 4" in ureg("get", "service", "pay", "--rev", "4", code=3).stderr
    assert "no revision 9" in ureg("get", "service", "pay", "--rev", "9", code=3).stderr
    ureg("get", "service", "--rev", "2", code=2)
    ureg("history", "service", "nobody", code=3)


def test_export_import_export_is_the_same_to_the_byte(ureg):
    ureg("set", "alias", "gs", "command=git status", "labels.x=y")
    ureg("set", "secret", "db", "value=-", stdin="hunter2-canary")
    ureg("set", "service", "..", "port=1")
    first = ureg("export").stdout
    assert "$sealed" in first
    for kind, name in (("alias", "gs"), ("secret", "db"), ("service", "..")):
        ureg("delete", kind, name)
    (ureg.folder / "all.ndjson").write_text(first)
    done = ureg("import", "all.ndjson", "-m", "back")
    assert done.stderr == "3 created, revision 7\n"
    assert ureg("export").stdout == first
    assert "3 unchanged" in ureg("import", "-", stdin=first).stderr
    yaml, array = ureg("export", "-o", "yaml").stdout, ureg("export", "-o", "json").stdout
    assert "3 unchanged" in ureg("import", "-", stdin=yaml).stderr
    assert "3 unchanged" in ureg("import", "-", stdin=array).stderr
    ureg("set", "alias", "gs", "command=git diff")
    assert (
        "1 updated"
        in ureg("import", "-", stdin=ureg("get", "alias", "gs", "-o", "json").stdout.replace("diff", "log")).stderr
    )
    got = ureg("get", "alias", "gs", "-o", "json").stdout
    ureg("set", "alias", "gs", "command=since then")
    assert "1 updated" in ureg("import", "-", stdin=got).stderr  # its meta.revision is of the past, and not asked
    sound = ureg("db", "check").stdout
    assert re.fullmatch(r"sound: \d+ lines up to revision \d+; 3 records\n", sound)


def test_secrets_of_another_registry_are_refused_with_what_to_do(ureg):
    ureg("set", "secret", "db", "value=-", stdin="hunter2-canary")
    exported = ureg("export").stdout
    other = str(ureg.folder / "other")
    ureg("--home", other, "init")
    document = {"kind": "alias", "name": "a", "spec": {"command": "x"}}
    done = ureg("--home", other, "import", "-", stdin=f"{json.dumps(document)}\n{exported}", code=6)
    assert "standard input, document 2" in done.stderr
    assert "sealed by another registry" in done.stderr
    assert "write the secret itself" in done.stderr
    assert ureg("--home", other, "export").stdout == ""


def test_an_import_is_all_or_nothing_and_bounded(ureg):
    lines = [json.dumps({"kind": "alias", "name": f"n{number}", "spec": {"command": "x"}}) for number in range(10_001)]
    done = ureg("import", "-", stdin="\n".join(lines), code=6)
    assert "10001 records; one import takes 10000" in done.stderr
    assert "split" in done.stderr
    bad = [*lines[:10], json.dumps({"kind": "alias", "name": "bad", "spec": {"command": 5}})]
    assert "document 11" in ureg("import", "-", stdin="\n".join(bad), code=6).stderr
    assert ureg("export").stdout == ""
    done = ureg("import", "-", stdin="\n".join(lines[:10_000]))
    assert done.stderr.splitlines() == ["10000 records read", "importing 10000 records", "10000 created, revision 1"]


def test_the_check_works_beside_a_daemon(ureg):
    ureg("set", "alias", "gs", "command=one")
    assert ureg.json("db", "check") == {"ok": True, "revision": 1, "lines": 1, "records": 1, "since": 0}


def test_the_check_names_the_first_bad_thing(offline):
    ureg = offline
    ureg("set", "alias", "gs", "command=one")
    ureg("set", "alias", "gs", "command=two")
    ureg("set", "alias", "other", "command=three")
    assert ureg.json("db", "check") == {"ok": True, "revision": 3, "lines": 3, "records": 2, "since": 0}
    path = ureg.home / ".universal_registry.db"
    sound = path.read_bytes()
    changes = {
        "UPDATE changes SET actor = 'nobody' WHERE revision = 2": "revision 2 was altered",
        "DELETE FROM changes WHERE revision = 2": "revision 2 is missing",
        "UPDATE changes SET body = replace(body, 'one', 'eno') WHERE revision = 1": "(put alias/default/gs) was",
        "UPDATE changes SET body = '{}' WHERE revision = 1": "cannot be read",
        "UPDATE aliases SET title = 'x' WHERE name = 'gs'": "record alias/default/gs is not what its newest line says",
        "DELETE FROM aliases WHERE name = 'gs'": "there are 1 records, and by the log there must be 2",
        "UPDATE aliases SET name = 'moved' WHERE name = 'gs'": "record alias/default/moved stands in no line",
        "DELETE FROM changes WHERE revision = 3": "record alias/default/other stands in no line",
    }
    for sql, told in changes.items():
        path.write_bytes(sound)
        connection = apsw.Connection(str(path))
        connection.execute("INSERT INTO write_guard (open) VALUES (1)")
        connection.execute(sql)
        connection.execute("DELETE FROM write_guard")
        connection.close()
        done = ureg("db", "check", code=1)
        assert told in done.stderr, sql
    path.write_bytes(sound[: len(sound) // 2])
    assert ureg.run(("db", "check"), b"", {}).returncode != 0


def test_migrations_are_listed_and_run(bare):
    ureg = bare
    ureg("db", "migrate", code=3)
    ureg("init")
    ureg("set", "alias", "gs", "command=one")
    assert "up to date" in ureg("db", "migrate", "--dry-run").stderr
    connection = apsw.Connection(str(ureg.home / ".universal_registry.db"))
    newest = load_migrations("registry", "sqlite")[-1]
    for table in re.findall(r"^CREATE TABLE (\w+)", newest.sql, re.MULTILINE):
        connection.execute(f"DROP TABLE {table}")
    connection.execute(f"PRAGMA user_version={newest.number - 1}")
    connection.close()
    assert ureg("db", "migrate", "--dry-run", "-o", "name").stdout == f"registry/{newest.number:04}\n"
    assert ureg("db", "migrate", "--dry-run", "-o", "name").stdout == f"registry/{newest.number:04}\n"
    done = ureg("db", "migrate")
    assert newest.name in done.stdout
    assert done.stderr == "1 done\n"
    assert "up to date" in ureg("db", "migrate").stderr
    assert "sound" in ureg("db", "check").stdout
    connection = apsw.Connection(str(ureg.home / ".universal_registry.db"))
    connection.execute("PRAGMA user_version=99")
    connection.close()
    ureg("db", "migrate", code=5)
