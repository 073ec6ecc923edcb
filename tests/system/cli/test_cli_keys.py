"""`ureg key` and `ureg config` as people run them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

Ureg = Any  # that of conftest.py
PASSPHRASE = "correct horse battery\n"


@pytest.fixture
def ureg(offline: Ureg) -> Ureg:
    """A registry whose daemon, if there is to be one, the test starts: most is about files."""
    return offline


def filled(ureg: Ureg) -> str:
    """A registry with a secret; the id of its key."""
    ureg("set", "secret", "token", "value=-", stdin="hunter2")
    kid: str = ureg.json("key", "ls")[0]["kid"]
    return kid


def opens(ureg: Ureg) -> bool:
    return ureg("key", "verify").stdout.startswith("sound: 3 sealed values open")


def test_ls_shows_what_each_key_opens(ureg: Ureg) -> None:
    kid = filled(ureg)
    done = ureg("key", "ls")
    assert done.stdout.splitlines()[1].split()[:2] == [kid, "primary"]
    assert "the next rotation is due at" in done.stderr
    assert [each["uses"] for each in ureg.json("key", "ls")] == [3]
    assert opens(ureg)


def test_rotate_and_retire_without_a_daemon(ureg: Ureg) -> None:
    old = filled(ureg)
    done = ureg("key", "rotate")
    assert "seals, and everything is sealed with it" in done.stdout
    assert f"ureg key retire {old}" in done.stderr
    new = ureg.json("key", "ls")[0]["kid"]
    assert new != old
    ureg("key", "retire", new, code=5)
    ureg("key", "retire", "nonsense", code=3)
    ureg("key", "retire", old)
    assert [each["here"] for each in ureg.json("key", "ls")] == [True, False]
    assert [each.name for each in (ureg.home / "config" / "keys").iterdir()] == []
    assert opens(ureg)
    Fernet((ureg.home / "config" / "encryption.key").read_bytes().strip())
    actions = {row["action"] for row in ureg.json("audit", "ls")}
    assert {"key.rotate", "key.seals", "key.rotated", "key.retire"} <= actions


def test_rotate_with_a_daemon(ureg: Ureg) -> None:
    old = filled(ureg)
    ureg("up", "--listen", "127.0.0.1:0")
    try:
        ureg("key", "rotate", "--no-wait")
        done = ureg("key", "rotate", "-o", "json")
        found = json.loads(done.stdout)
        assert found["rotation"] is None
        assert old not in found["keys"][0]["kid"]
        assert {each["uses"] for each in found["keys"][1:]} == {0}
        assert opens(ureg)
        ureg("key", "retire", old)
        log = [json.loads(line) for line in (ureg.home / "logs" / "registry.log").read_text().splitlines()]
        assert {"key announced", "key seals", "key rotation done", "key retired"} <= {line["event"] for line in log}
    finally:
        ureg("down")
    assert opens(ureg)


# --- backup and restore ---------------------------------------------------------------------------------------------


def test_a_backup_restores_on_a_new_machine(ureg: Ureg) -> None:
    filled(ureg)
    ureg("key", "rotate")
    done = ureg("key", "backup", "keys.backup", stdin=PASSPHRASE)
    assert "2 keys written to keys.backup; fingerprint" in done.stdout
    backup = ureg.folder / "keys.backup"
    assert backup.stat().st_mode & 0o777 == 0o600
    ureg("key", "backup", "keys.backup", stdin=PASSPHRASE, code=5)
    shutil.rmtree(ureg.home / "config")
    ureg("key", "verify", code=5)
    ureg("key", "restore", "keys.backup", stdin="another passphrase", code=4)
    assert not (ureg.home / "config").exists()
    (ureg.folder / "pass").write_text(PASSPHRASE)
    done = ureg("key", "restore", "keys.backup", "--passphrase-file", "pass")
    assert "2 keys restored" in done.stdout
    assert opens(ureg)
    assert len(ureg.json("key", "ls")) == 2


def test_a_backup_of_another_store_writes_nothing(ureg: Ureg) -> None:
    filled(ureg)
    ureg("key", "backup", "keys.backup", stdin=PASSPHRASE)
    other = str(ureg.folder / "other")
    ureg("init", "--home", other)
    key = Path(other, "config", "encryption.key")
    before = key.read_bytes()
    done = ureg("key", "restore", "keys.backup", "--home", other, stdin=PASSPHRASE, code=5)
    assert "nothing was written" in done.stderr
    key.unlink()
    ureg("key", "restore", "keys.backup", "--home", other, stdin=PASSPHRASE, code=5)
    assert not key.exists()
    key.write_bytes(before)
    key.chmod(0o600)
    ureg("key", "verify", "--home", other)


def test_a_restore_before_the_store_makes_that_its_key(ureg: Ureg) -> None:
    kid = filled(ureg)
    ureg("key", "backup", "keys.backup", stdin=PASSPHRASE)
    other = str(ureg.folder / "other")
    done = ureg("key", "restore", "keys.backup", "--home", other, stdin=PASSPHRASE)
    assert "there is no store here yet" in done.stderr
    ureg("init", "--home", other)
    assert json.loads(ureg("key", "ls", "-o", "json", "--home", other).stdout)[0]["kid"] == kid


def test_a_foreign_key_that_stands_there_is_kept(ureg: Ureg) -> None:
    filled(ureg)
    ureg("key", "backup", "keys.backup", stdin=PASSPHRASE)
    key = ureg.home / "config" / "encryption.key"
    foreign = Fernet.generate_key()
    key.write_bytes(foreign)
    done = ureg("get", "secret", code=5)
    assert "ureg key restore FILE" in done.stderr
    ureg("key", "restore", "keys.backup", stdin=PASSPHRASE)
    assert opens(ureg)
    (kept,) = (ureg.home / "config" / "keys").iterdir()
    assert kept.read_bytes().strip() == foreign


@pytest.mark.parametrize("text", [b"", b"no key at all\n", b"\xff" * 44])
def test_a_key_file_that_holds_no_key_is_put_aside(ureg: Ureg, text: bytes) -> None:
    filled(ureg)
    ureg("key", "backup", "keys.backup", stdin=PASSPHRASE)
    (ureg.home / "config" / "encryption.key").write_bytes(text)
    done = ureg("get", "secret", code=5)
    assert "ureg key restore FILE" in done.stderr
    ureg("key", "restore", "keys.backup", stdin=PASSPHRASE)
    assert opens(ureg)
    (kept,) = (ureg.home / "config" / "keys").iterdir()
    assert kept.read_bytes() == text


@pytest.mark.parametrize("text", ["", "\n", "short\n"])
def test_a_passphrase_that_is_none_is_refused(ureg: Ureg, text: str) -> None:
    filled(ureg)
    done = ureg.run(("key", "backup", "keys.backup"), text.encode(), {})
    assert done.returncode in (2, 6)
    assert done.stderr.count("\n") == 1
    assert not (ureg.folder / "keys.backup").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff", b"A" * 43 + b"="])
def test_what_is_no_backup_is_refused(ureg: Ureg, content: bytes) -> None:
    filled(ureg)
    (ureg.folder / "keys.backup").write_bytes(content)
    assert "not a backup of keys" in ureg("key", "restore", "keys.backup", stdin=PASSPHRASE, code=6).stderr
    assert opens(ureg)


# --- verify ---------------------------------------------------------------------------------------------------------


def spoil(home: Path, change: Callable[[str], str]) -> None:
    with sqlite3.connect(home / ".universal_registry.db") as database:
        ((spec,),) = database.execute("SELECT spec FROM secrets WHERE name = 'token'").fetchall()
        database.execute("INSERT INTO write_guard VALUES (1)")
        database.execute("UPDATE secrets SET spec = ? WHERE name = 'token'", (change(spec),))
        database.execute("DELETE FROM write_guard")


def cut(spec: str) -> str:
    seal = json.loads(spec)["value"]["$sealed"]
    return spec.replace(seal, seal[:-8])


def lost_key(spec: str) -> str:
    seal = json.loads(spec)["value"]["$sealed"]
    return spec.replace(seal[:8], "00000000")


@pytest.mark.parametrize(
    ("change", "said"),
    [(cut, "it does not open"), (lost_key, "sealed with key 00000000, which is not there")],
)
def test_verify_names_what_does_not_open(ureg: Ureg, change: Callable[[str], str], said: str) -> None:
    filled(ureg)
    spoil(ureg.home, change)
    done = ureg("key", "verify", code=1)
    assert "record secret/default/token" in done.stderr
    assert said in done.stderr
    assert "1 sealed values do not open; 2 do" in done.stderr


def test_verify_notices_a_token_that_was_moved(ureg: Ureg) -> None:
    filled(ureg)
    ureg("set", "secret", "other", "value=-", stdin="other")
    with sqlite3.connect(ureg.home / ".universal_registry.db") as database:
        ((spec,),) = database.execute("SELECT spec FROM secrets WHERE name = 'other'").fetchall()
    spoil(ureg.home, lambda _: spec)
    assert "was moved: it belongs to another place" in ureg("key", "verify", code=1).stderr


# --- config ---------------------------------------------------------------------------------------------------------


def test_config_show_names_the_line_of_each_value(ureg: Ureg) -> None:
    ureg.home.mkdir(exist_ok=True)
    (ureg.home / "config.py").write_text("RETRY_CONFIG = {\n    'max_retries': 2,\n}\n")
    done = ureg("config", "show", "--origin", REGISTRY_RETRY_MAX_DELAY_SECONDS="9")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert rows["retry.max_retries"] == ["2", "config.py:2"]
    assert rows["retry.max_delay_seconds"] == ["9.0", "REGISTRY_RETRY_MAX_DELAY_SECONDS"]
    assert rows["retry.enabled"] == ["true", "default"]
    changed = {item["setting"] for item in ureg.json("config", "show", "--changed")}
    assert changed == {"home", "listen", "retry.max_retries"}
    assert {item["setting"].split(".")[0] for item in ureg.json("config", "show", "retry")} == {"retry"}
    ureg("config", "show", "nonsense", code=3)


def test_config_show_never_shows_a_password(ureg: Ureg) -> None:
    done = ureg("config", "show", REGISTRY_DB_HOST="db.lan", REGISTRY_DB_PASSWORD="hunter2-hunter2")
    assert "postgresql: universal_registry on db.lan:5432 as registry" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("RETRY_CONFIG = {'max_retries': -1}", "config.py:1: retry.max_retries is -1"),
        ("\nRETRY_CONFIG = {'max_retries': int('5')}", "config.py:2 is not written out as a literal"),
        ("RETRY_CONFIG = {", "config.py:1 is not Python"),
    ],
)
def test_a_bad_literal_is_one_line_naming_its_place(ureg: Ureg, config: str, said: str) -> None:
    ureg.home.mkdir(exist_ok=True)
    (ureg.home / "config.py").write_text(config)
    done = ureg("status", code=2)
    (ureg.home / "config.py").unlink()
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_edit_of_config_takes_effect_with_a_hangup(
    ureg: Ureg, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    """The daemon goes on with its old settings when the new ones are wrong, and says so."""
    filled(ureg)
    config = ureg.home / "config.py"
    config.write_text("ENCRYPTION_CONFIG = {'encrypt_payloads': True}\n")
    ureg("up", "--listen", "127.0.0.1:0")
    try:
        assert ureg.json("status")["warnings"] == []
        config.write_text("ENCRYPTION_CONFIG = {'encrypt_payloads': False, 'encrypt_logs': True}\n")
        hangup(ureg, wait_for, "reloaded")
        (warning,) = ureg.json("status")["warnings"]
        assert "nothing is sealed on the wire" in warning
        config.write_text("ENCRYPTION_CONFIG = {'encrypt_payloads': 5}\n")
        hangup(ureg, wait_for, "not reloaded: the old settings and files stay")
        config.write_text("ENCRYPTION_CONFIG = {'encrypt_payloads': False, 'encrypt_logs': True}\n")
        assert ureg.json("status")["warnings"] == [warning]
    finally:
        config.unlink()
        ureg("down")
    log = ureg.home / "logs" / "registry.log"
    sealed = [line for line in log.read_text().splitlines() if '"sealed":' in line]
    assert sealed
    assert "not reloaded" in sealed[-3] + sealed[-2] + sealed[-1]
    opened = ureg("key", "open", str(log)).stdout
    assert '"sealed":' not in opened
    assert "encryption.encrypt_payloads is 5" in opened


def hangup(ureg: Ureg, wait_for: Callable[[Callable[[], object]], bool], until: str) -> None:
    """Send SIGHUP, and wait for what the daemon says of it."""
    log = ureg.home / "logs" / "registry.log"
    before = log.read_text().count(until)
    os.kill(int((ureg.home / "run" / "ureg.pid").read_text()), signal.SIGHUP)
    assert wait_for(lambda: log.read_text().count(until) > before)


@pytest.mark.parametrize("place", ["elsewhere/my.key", "{folder}/outside/my.key"])
def test_the_key_is_where_config_says(bare: Ureg, place: str) -> None:
    place = place.format(folder=bare.folder)
    bare.home.mkdir()
    (bare.home / "config.py").write_text(f"ENCRYPTION_CONFIG = {{'key_path': {place!r}}}\n")
    assert f"created {place}" in bare("init").stdout
    assert (bare.home / place).stat().st_mode & 0o777 == 0o600
    assert not (bare.home / "config" / "encryption.key").exists()
    bare("set", "secret", "token", "value=-", stdin="hunter2")
    bare("key", "rotate")
    assert opens(bare)
    (bare.home / place).unlink()
    assert f"{bare.home / place} is missing" in bare("key", "verify", code=5).stderr


def test_a_mounted_key_is_used_and_never_rotated(bare: Ureg) -> None:
    mounted = bare.folder / "mounted.key"
    mounted.write_bytes(Fernet.generate_key())
    bare.environ["REGISTRY_ENCRYPTION_KEY_FILE"] = str(mounted)
    bare("init")
    bare("set", "secret", "token", "value=-", stdin="hunter2")
    assert opens(bare)
    assert "not ours to write" in bare("key", "rotate", code=1).stderr
    assert not (bare.home / "config" / "encryption.key").exists()


def test_names_of_targets_are_digests_in_metrics_when_asked_for(ureg: Ureg) -> None:
    ureg("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias")
    digest = ureg("key", "digest", "system/mine").stdout.strip()
    assert len(digest) == 16
    clear = ureg("metrics").stdout
    assert "mine" in clear
    hidden = ureg("metrics", REGISTRY_ENCRYPTION_ENCRYPT_METRICS="yes").stdout
    assert "mine" not in hidden
    assert f'target="{digest}"' in hidden


@pytest.mark.parametrize("bare", ["postgresql"], indirect=True)
def test_rotate_on_postgresql_without_a_daemon(offline: Ureg) -> None:
    """It waits a few seconds for other daemons to take the new key over, and then does the whole work."""
    old = filled(offline)
    done = offline("key", "rotate")
    assert "everything is sealed with it" in done.stdout
    assert "announced, 0 rows so far" in done.stderr
    offline("key", "retire", old)
    assert opens(offline)
