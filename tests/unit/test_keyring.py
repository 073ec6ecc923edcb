from __future__ import annotations

import base64
import multiprocessing
import os
import stat
import tempfile
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from universal_registry.kernel.errors import Conflict, Corrupt, Invalid, KeyMismatch, ReadOnlyStore, RegistryError
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.keyring import Keyring, fingerprint, kid_of, new_key, parse_key
from universal_registry.storage.keyfile import (
    KeyFiles,
    load_or_create_key,
    private_folder,
    write_private,
)

WORLD = SystemWorld()


def key_of(byte: int) -> bytes:
    return base64.urlsafe_b64encode(bytes([byte]) * 32)


# --- pure -----------------------------------------------------------------------------------------------------------


def test_parse_key_takes_fernet_keys() -> None:
    for key in (Fernet.generate_key(), new_key(WORLD), key_of(255)):
        assert parse_key(key) == key
        assert parse_key(key.decode() + "\n") == key
        assert parse_key(b" \t" + key + b"\r\n") == key
        Fernet(parse_key(key))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"secretsecret",
        key_of(1)[:-1],
        key_of(1) + b"=",
        key_of(1) + b"\n" + key_of(2),
        key_of(1)[:20] + b"\n" + key_of(1)[20:],
        b"# key\n" + key_of(1),
        base64.b64encode(b"\xff" * 32),  # + and / are not url-safe
        base64.urlsafe_b64encode(b"x" * 31),
        base64.urlsafe_b64encode(b"x" * 33),
        key_of(1)[:-2] + b"F=",  # the last character with stray bits: the same key to a kind reader
        b"\x00" * 44,
        b"\xff" * 44,
        "é" * 44,
        key_of(1).replace(b"=", b"\x00"),
    ],
)
def test_parse_key_refuses_all_else_and_shows_nothing(text: bytes | str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_key(text)
    shown = text if isinstance(text, str) else text.decode("latin-1")
    assert len(shown.strip()) < 8 or shown.strip()[:8] not in str(caught.value)


def test_ids_and_fingerprints() -> None:
    one, two = key_of(1), key_of(2)
    ring = Keyring.of(one, [two, one])
    assert ring.primary == kid_of(one)
    assert set(ring.keys) == {kid_of(one), kid_of(two)}
    assert ring.fingerprint == fingerprint(one)
    assert len(fingerprint(one)) == 16
    assert fingerprint(one).startswith(kid_of(one))
    assert ring.key(kid_of(two)) == two
    assert one.decode() not in repr(ring)


def test_keyring_refuses_what_is_not_its_own() -> None:
    ring = Keyring.of(key_of(1))
    with pytest.raises(Corrupt, match=f"sealed with key {kid_of(key_of(2))}"):
        ring.key(kid_of(key_of(2)))
    with pytest.raises(Corrupt) as caught:
        ring.key("hunter2-the-password")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Invalid):
        Keyring("00000000", {kid_of(key_of(1)): key_of(1)})
    with pytest.raises(Invalid):
        Keyring("00000000", {"00000000": key_of(1)})


# --- the file -------------------------------------------------------------------------------------------------------


def make(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "config" / "encryption.key"


def refusal(path: Path, *, may_create: bool = False) -> str:
    with pytest.raises(KeyMismatch) as caught:
        load_or_create_key(path, WORLD, may_create=may_create)
    return str(caught.value)


def test_a_key_is_made_once(path: Path) -> None:
    old = os.umask(0)  # even with no umask the file is ours alone
    try:
        ring = load_or_create_key(path, WORLD, may_create=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["encryption.key"]
    assert path.stat().st_nlink == 1
    Fernet(path.read_bytes().strip())
    for may_create in (True, False):
        assert load_or_create_key(path, WORLD, may_create=may_create) == ring


def test_an_existing_users_key_is_taken_over(path: Path) -> None:
    key = Fernet.generate_key()
    make(path, key)  # as the older program wrote it: no line break
    assert load_or_create_key(path, WORLD, may_create=True).keys == {kid_of(key): key}
    assert path.read_bytes() == key


def test_older_keys_open_but_do_not_seal(path: Path) -> None:
    make(path, key_of(1))
    make(path.parent / "keys" / "2024.key", key_of(2))
    make(path.parent / "keys" / "2025.key", key_of(3) + b"\n")
    make(path.parent / "keys" / "note.txt", b"no key", 0o644)
    ring = load_or_create_key(path, WORLD, may_create=False)
    assert ring.primary == kid_of(key_of(1))
    assert set(ring.keys.values()) == {key_of(1), key_of(2), key_of(3)}
    make(path.parent / "keys" / "2026.key", b"garbage")
    assert "2026.key does not hold a key" in refusal(path)


def test_a_missing_key_is_never_replaced(path: Path) -> None:
    with pytest.raises(KeyMismatch) as caught:
        load_or_create_key(path, WORLD, may_create=False, expected="0123456789abcdef")
    assert "the store was sealed with key 0123456789abcdef" in str(caught.value)
    assert "restore config/encryption.key from your backup" in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"\n", b"garbage", key_of(1) * 2, b"\x00" * 44, b"x" * 1_000_000])
@pytest.mark.parametrize("may_create", [True, False])
def test_garbage_is_refused_and_left_as_it_is(path: Path, content: bytes, may_create: bool) -> None:
    make(path, content)
    assert "does not hold a key" in refusal(path, may_create=may_create)
    assert path.read_bytes() == content


def test_an_empty_file_is_no_key_and_is_made_anew_where_nothing_is_sealed(path: Path) -> None:
    make(path, b"")
    assert "does not hold a key" in refusal(path, may_create=False)
    assert path.read_bytes() == b""
    made = load_or_create_key(path, WORLD, may_create=True)
    assert load_or_create_key(path, WORLD, may_create=False).fingerprint == made.fingerprint


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o660, 0o601])
def test_a_wider_file_is_refused_with_the_command(path: Path, mode: int) -> None:
    make(path, key_of(1), mode)
    said = refusal(path)
    assert f"mode {mode:04o}" in said
    assert f"chmod 600 {path}" in said
    path.chmod(0o600)
    load_or_create_key(path, WORLD, may_create=False)


@pytest.mark.parametrize("may_create", [True, False])
def test_a_wider_folder_is_refused_with_the_command(tmp_path: Path, may_create: bool) -> None:
    path = make(tmp_path / "my home" / "config" / "encryption.key", key_of(1))
    path.parent.chmod(0o755)
    assert f"chmod 700 '{path.parent}'" in refusal(path, may_create=may_create)
    path.unlink()
    if may_create:
        assert "chmod 700" in refusal(path, may_create=True)
        assert not path.exists()


def test_symbolic_links_are_refused(path: Path, tmp_path: Path) -> None:
    real = make(tmp_path / "elsewhere" / "real.key", key_of(1))
    path.parent.mkdir(mode=0o700, parents=True)
    path.symlink_to(real)
    assert "is a symbolic link" in refusal(path)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert "is a symbolic link" in refusal(path, may_create=True)
    assert not (tmp_path / "nowhere").exists()
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(real.parent)
    make(real.with_name("encryption.key"), key_of(1))
    assert "is a symbolic link" in refusal(path)


@pytest.mark.parametrize("may_create", [True, False])
def test_what_is_no_file_is_refused(path: Path, may_create: bool) -> None:
    path.mkdir(parents=True)
    path.parent.chmod(0o700)
    assert "is not a regular file" in refusal(path, may_create=may_create)
    path.rmdir()
    os.mkfifo(path, 0o600)  # must not hang either
    assert "is not a regular file" in refusal(path, may_create=may_create)


def test_a_file_in_the_folders_place_is_one_clear_error(path: Path) -> None:
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("x")
    for may_create in (True, False):
        with pytest.raises(RegistryError) as caught:
            load_or_create_key(path, WORLD, may_create=may_create)
        assert "not a directory" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_foreign_owner_is_refused(path: Path) -> None:
    make(path, key_of(1))
    os.chown(path, 65534, -1)
    assert "belongs to user 65534, not to 0" in refusal(path)
    os.chown(path, 0, -1)
    os.chown(path.parent, 65534, -1)
    assert f"chown 0 {path.parent}" in refusal(path)


def as_nobody(path: Path, may_create: bool, results: multiprocessing.Queue[str]) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        load_or_create_key(path, SystemWorld(), may_create=may_create)
        results.put("no error")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent judges it
        results.put(f"{type(error).__name__} {error}")


def outcome_as_nobody(path: Path, *, may_create: bool) -> str:
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=as_nobody, args=(path, may_create, results))
    child.start()
    said: str = results.get(timeout=60)
    child.join(60)
    return said


@pytest.mark.parametrize("may_create", [True, False])
def test_a_closed_folder_is_one_clear_error_and_no_missing_key(path: Path, may_create: bool) -> None:
    path.parent.parent.mkdir()
    path.parent.parent.chmod(0)
    said = outcome_as_nobody(path, may_create=may_create)
    path.parent.parent.chmod(0o700)
    assert said.startswith(f"ReadOnlyStore the key file {path} cannot be used: permission denied")
    assert "\n" not in said


def test_a_read_only_folder_is_one_clear_error() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which other users cannot enter
        home = Path(name)
        home.chmod(0o555)
        said = outcome_as_nobody(home / "config" / "encryption.key", may_create=True)
        assert said.startswith("ReadOnlyStore the key file")
        assert "must be able to read and write" in said
        assert list(home.iterdir()) == []


def test_private_folder_makes_or_checks(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    private_folder(folder)
    private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o770)
    with pytest.raises(KeyMismatch, match="chmod 700"):
        private_folder(folder)


# --- replacing ------------------------------------------------------------------------------------------------------


def files(path: Path, **more: Path) -> KeyFiles:
    return KeyFiles(path, WORLD, **more)


def names(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path.parent)) for file in path.parent.rglob("*") if file.is_file())


def test_a_replaced_key_is_kept_beside(path: Path) -> None:
    make(path, key_of(1))
    files(path).make_primary(key_of(2))
    ring = files(path).load()
    assert ring.primary == kid_of(key_of(2))
    assert set(ring.keys.values()) == {key_of(1), key_of(2)}
    assert names(path) == ["encryption.key", f"keys/{kid_of(key_of(1))}.key"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.rglob("*.key")} == {0o600}
    assert stat.S_IMODE((path.parent / "keys").stat().st_mode) == 0o700
    files(path).make_primary(key_of(2))
    files(path).keep(key_of(1))
    assert names(path) == ["encryption.key", f"keys/{kid_of(key_of(1))}.key"], "twice does no harm"
    files(path).drop(kid_of(key_of(1)))
    assert names(path) == ["encryption.key"]
    files(path).drop(kid_of(key_of(1)))


def test_what_a_kill_left_of_a_replacement_is_swept(path: Path) -> None:
    make(path, key_of(1))
    left = make(path.with_name(".encryption.key.abc.part"), key_of(9))
    files(path).make_primary(key_of(2))
    assert not left.exists()


def test_a_key_file_that_is_no_key_is_never_replaced(path: Path) -> None:
    make(path, b"garbage")
    with pytest.raises(KeyMismatch, match="does not hold a key"):
        files(path).make_primary(key_of(2))
    assert path.read_bytes() == b"garbage"


def test_a_mounted_key_is_read_through_links_and_never_written(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "secret"
    real.write_bytes(key_of(1) + b"\n")
    real.chmod(0o444)
    mounted = tmp_path / "link"
    mounted.symlink_to(real)
    keys = files(path, mounted=mounted)
    assert keys.read_only
    assert keys.load(may_create=True).primary == kid_of(key_of(1))
    with pytest.raises(ReadOnlyStore, match="not ours to write"):
        keys.make_primary(key_of(2))
    keys.keep(key_of(2))
    assert set(keys.load().keys.values()) == {key_of(1), key_of(2)}
    real.unlink()
    with pytest.raises(KeyMismatch, match="is missing; the store was sealed with key abc"):
        keys.load(may_create=True, expected="abc")
    real.mkdir()
    with pytest.raises(KeyMismatch, match="is not a regular file"):
        keys.load()
    assert not path.exists()


def test_a_private_file_is_new_or_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "backup", b"text", WORLD)
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
    with pytest.raises(Conflict, match="is there already"):
        write_private(tmp_path / "backup", b"other", WORLD)
    assert (tmp_path / "backup").read_bytes() == b"text"
    with pytest.raises(RegistryError):
        write_private(tmp_path / "nowhere" / "backup", b"text", WORLD)
    assert [file.name for file in tmp_path.iterdir()] == ["backup"]


def race(path: Path, barrier: multiprocessing.synchronize.Barrier, results: multiprocessing.Queue[str]) -> None:
    barrier.wait(60)
    try:
        results.put(load_or_create_key(path, SystemWorld(), may_create=True).fingerprint)
    except BaseException as error:  # the parent must hear of it
        results.put(repr(error))
        raise


def test_two_hundred_processes_racing_get_one_key(path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(200), fork.Queue()
    processes = [fork.Process(target=race, args=(path, barrier, results)) for _ in range(200)]
    for process in processes:
        process.start()
    prints = {results.get(timeout=90) for _ in processes}
    for process in processes:
        process.join(60)
    assert prints == {load_or_create_key(path, WORLD, may_create=False).fingerprint}
    assert [file.name for file in path.parent.iterdir()] == ["encryption.key"]
