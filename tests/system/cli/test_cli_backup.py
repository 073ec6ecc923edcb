"""`ureg backup`, `restore`, `drill` and `db to-postgres`, as people run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pgserver

Ureg = Any

PASSPHRASE = "correct horse battery"


def test_a_backup_goes_to_another_machine(offline: Ureg, tmp_path: Path) -> None:
    ureg = offline
    ureg("set", "alias", "gs", "command=git status")
    ureg("set", "secret", "token", "value=canary")
    ureg("key", "backup", "keys", "--passphrase-file", "-", stdin=PASSPHRASE)
    made = json.loads(ureg("backup", "one.backup", "-o", "json").stdout)
    assert made["revision"] == 2
    assert "there already" in ureg("backup", "one.backup", code=5).stderr
    there = ("--home", str(tmp_path / "there"))
    assert "--keys FILE" in ureg("restore", "one.backup", *there, code=5).stderr
    assert "passphrase" in ureg("restore", "one.backup", "--keys", "keys", *there, stdin="wrong one", code=4).stderr
    done = ureg("restore", "one.backup", "--keys", "keys", "--passphrase-file", "-", *there, stdin=PASSPHRASE)
    assert "restored" in done.stdout + done.stderr
    assert json.loads(ureg("get", "alias", "gs", "-o", "json", *there).stdout)["spec"]["command"] == "git status"
    ureg("db", "check", *there)
    ureg("key", "verify", *there)
    ureg("restore", "one.backup", "--replace")
    ureg("restore", "nothing.backup", code=3)
    assert json.loads((ureg.home / "care.json").read_text())["key_backup"]["kids"]


def test_a_drill_says_each_step_and_remembers_that_it_was_done(offline: Ureg) -> None:
    ureg = offline
    ureg("set", "secret", "token", "value=canary")
    ureg("key", "backup", "keys", "--passphrase-file", "-", stdin=PASSPHRASE)
    ureg("up")
    try:
        ureg("backup", "one.backup")
        ureg("set", "alias", "later", "command=true")
        found = json.loads(ureg("drill", "one.backup", "--keys", "keys", "-o", "json", stdin=PASSPHRASE).stdout)
    finally:
        ureg("down")
    assert [step["name"] for step in found["steps"]] == ["read", "restore", "chain", "compare", "open", "rotate"]
    assert json.loads((ureg.home / "care.json").read_text())["drill"]["keys"] is True
    backup = ureg.folder / "one.backup"
    backup.write_bytes(backup.read_bytes()[:-100])
    assert "cut off" in ureg("drill", "one.backup", code=1).stderr


def test_the_daemon_makes_backups_by_the_clock(offline: Ureg, wait_for: Callable[[Callable[[], object]], bool]) -> None:
    ureg = offline
    folder = ureg.folder / "kept"
    ureg("up", REGISTRY_BACKUP_FOLDER=str(folder))
    try:
        assert wait_for(lambda: any(folder.glob("ureg-*.backup")))
    finally:
        ureg("down")
    (made,) = folder.glob("ureg-*.backup")
    ureg("restore", str(made), "--replace")


def test_a_backup_that_is_not_made_is_said_everywhere(
    offline: Ureg, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    ureg = offline
    folder = ureg.folder / "kept"
    folder.write_text("a file in its place")
    ureg("up", REGISTRY_BACKUP_FOLDER=str(folder))

    def warned() -> list[str]:
        found = json.loads(ureg("status", "-o", "json").stdout)["warnings"]
        return [each for each in found if "no backup is made since" in each]

    try:
        assert wait_for(warned)
        assert str(folder) in warned()[0]
        health = json.loads(ureg("health", "-o", "json").stdout)
        assert health["status"] == "ok", "the daemon does its work"
        assert health["warnings"][0].startswith("no backup is made since")
        assert str(folder) not in health["warnings"][0], "anybody may ask"
        assert "no backup is made since" in ureg("health").stderr
        found = json.loads(ureg("doctor", "-o", "json", code=1, REGISTRY_BACKUP_FOLDER=str(folder)).stdout)
        assert [each["state"] for each in found if each["name"] == "made"] == ["fail"]
    finally:
        ureg("down")


def test_a_backup_goes_through_a_pipe(offline: Ureg) -> None:
    ureg = offline
    ureg("set", "alias", "gs", "command=git status")
    words = [sys.executable, "-P", "-m", "universal_registry", "backup", "-"]
    done = subprocess.run(words, cwd=ureg.folder, env=ureg.environ, capture_output=True, check=True)
    path = ureg.folder / "piped.backup"
    path.write_bytes(done.stdout)
    assert b"standard output" in done.stderr
    assert not (ureg.folder / "-").exists()
    ureg("restore", str(path), "--replace")
    assert ureg("get", "alias", "gs", "-o", "name").stdout


def test_all_keys_that_a_backup_may_need_are_named(offline: Ureg) -> None:
    ureg = offline
    ureg("set", "secret", "token", "value=canary")
    ureg("key", "backup", "old.keys", "--passphrase-file", "-", stdin=PASSPHRASE)
    ureg("key", "rotate")
    ureg("key", "backup", "new.keys", "--passphrase-file", "-", stdin=PASSPHRASE)
    made = json.loads(ureg("backup", "one.backup", "-o", "json").stdout)
    assert len(made["keys"]) == 2
    assert made["fingerprint"].startswith(made["keys"][0])
    there = ("--home", str(ureg.folder / "there"))
    assert "key" in ureg("restore", "one.backup", "--keys", "old.keys", *there, stdin=PASSPHRASE, code=5).stderr
    done = ureg("restore", "one.backup", "--keys", "new.keys", "-o", "json", *there, stdin=PASSPHRASE)
    assert json.loads(done.stdout)["without"] == []
    ureg("key", "verify", *there)


def test_up_names_a_store_that_is_damaged(offline: Ureg) -> None:
    """In a page that nobody needs to start: the middle of what one record holds."""
    ureg = offline
    ureg("set", "alias", "long", "--file", "-", stdin=json.dumps({"spec": {"command": "x" * 40_000}}))
    file = ureg.home / ".universal_registry.db"
    text = bytearray(file.read_bytes())
    full = [at for at in range(0, len(text), 4096) if text[at + 4 : at + 4096] == b"x" * 4092]
    text[full[1] : full[1] + 4] = b"\xff" * 4  # where the record goes on
    file.write_bytes(text)
    try:
        assert "is damaged" in ureg("up").stderr
    finally:
        ureg("down")


def test_it_moves_to_postgresql(offline: Ureg, postgres: pgserver.Server) -> None:
    ureg = offline
    ureg("set", "alias", "gs", "command=git status")
    ureg("db", "to-postgres", code=2)
    database = postgres.database("cli_moved")
    env = {"REGISTRY_DB_HOST": database.host, "REGISTRY_DB_NAME": database.name, "REGISTRY_DB_USER": database.user}
    env |= {"REGISTRY_DB_PORT": str(database.port)}
    refused = ureg("db", "to-postgres", code=1, **(env | {"REGISTRY_DB_HOST": "127.0.0.1", "REGISTRY_DB_PORT": "1"}))
    assert "say this again" in refused.stderr
    assert "by itself" not in refused.stderr
    ureg("up")
    assert "in use" in ureg("db", "to-postgres", code=5, **env).stderr
    ureg("down")
    assert "moved" in ureg("db", "to-postgres", **env).stdout
    assert json.loads(ureg("get", "alias", "gs", "-o", "json", **env).stdout)["meta"]["revision"] == 1
    assert not (ureg.home / ".universal_registry.db").exists()
    for words in (("up",), ("init",)):  # in a shell where the variables are not set
        assert "was moved to PostgreSQL" in ureg(*words, code=5).stderr
    assert "was moved to PostgreSQL" in ureg("get", "alias", code=3).stderr
    assert "was moved to PostgreSQL" in ureg("db", "to-postgres", code=3, **env).stderr
    assert "was moved to PostgreSQL" in ureg("doctor", code=1).stdout


def test_files_are_not_left_behind_for_an_empty_database(offline: Ureg, postgres: pgserver.Server) -> None:
    ureg = offline
    ureg("set", "alias", "gs", "command=git status")
    database = postgres.database("cli_too_early")
    env = {"REGISTRY_DB_HOST": database.host, "REGISTRY_DB_NAME": database.name, "REGISTRY_DB_USER": database.user}
    for words in (("up",), ("init",), ("set", "alias", "x", "command=y")):
        assert "ureg db to-postgres" in ureg(*words, code=5, **env).stderr
    assert "moved" in ureg("db", "to-postgres", **env).stdout
    assert json.loads(ureg("get", "alias", "gs", "-o", "json", **env).stdout)["meta"]["revision"] == 1


def test_the_doctor_says_what_is_wrong_and_puts_right_what_is_safe(offline: Ureg) -> None:
    def states(*words: str, code: int) -> dict[str, str]:
        found = json.loads(offline("doctor", "-o", "json", *words, code=code).stdout)
        return {f"{each['group']}/{each['name']}": each["state"] for each in found}

    assert states(code=10)["daemon/runs"] == "warn"
    (offline.home / "config" / "admin.token").chmod(0o644)
    assert states(code=1)["home/private"] == "fail"
    assert states("--fix", code=10)["home/private"] == "ok"
    offline("key", "backup", "keys", "--passphrase-file", "-", stdin=PASSPHRASE)
    offline("backup", "one.backup")
    offline("drill")
    offline("up")
    assert set(states(code=0).values()) == {"ok"}
    offline("down")
    key = offline.home / "config" / "encryption.key"
    kept = key.read_bytes()
    key.unlink()
    assert states(code=1)["keys/key"] == "fail"
    key.write_bytes(kept)
    key.chmod(0o600)
    (offline.home / ".universal_registry.db").write_bytes(b"not a database" * 100)
    assert states(code=1)["stores/sound"] == "fail"
    offline("restore", "one.backup", "--replace")
    assert states(code=10)["stores/sound"] == "ok"


def test_the_checklist_shows_what_is_done(offline: Ureg) -> None:
    def states() -> list[str]:
        return [each["state"] for each in json.loads(offline.run(("checklist", "-o", "json"), b"", {}).stdout)]

    assert states()[0] == "not yet"
    offline("key", "backup", "keys", "--passphrase-file", "-", stdin=PASSPHRASE)
    offline("token", "add", "prometheus", "--scope", "read")
    offline("drill", "--keys", "keys", stdin=PASSPHRASE)
    found = states()
    assert (found[0], found[4], found[8]) == ("ok", "ok", "ok")
