from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography.fernet import Fernet

from universal_registry.kernel.errors import Invalid, Unauthenticated
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.key_backup import unwrap_keys, wrap_keys
from universal_registry.security.keyring import Keyring, new_key

WORLD = SystemWorld()
ONE, TWO = new_key(WORLD), new_key(WORLD)
PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def backup() -> bytes:
    return wrap_keys(Keyring.of(ONE, [TWO]), PASSPHRASE, WORLD)


def test_all_keys_come_back_and_none_is_in_clear(backup: bytes) -> None:
    assert unwrap_keys(backup, PASSPHRASE) == Keyring.of(ONE, [TWO])
    assert ONE not in backup
    assert TWO not in backup
    assert wrap_keys(Keyring.of(ONE), PASSPHRASE, WORLD) != wrap_keys(Keyring.of(ONE), PASSPHRASE, WORLD)


def test_it_opens_without_this_program(backup: bytes) -> None:
    """The lines of docs/how-to/keys.md."""
    found = json.loads(backup)
    kdf = found["kdf"]
    salt = base64.b64decode(kdf["salt"])
    derived = hashlib.scrypt(PASSPHRASE.encode(), salt=salt, n=kdf["n"], r=kdf["r"], p=kdf["p"], maxmem=2**28, dklen=32)
    keys = json.loads(Fernet(base64.urlsafe_b64encode(derived)).decrypt(found["keys"]))
    assert keys["keys"] == [ONE.decode(), TWO.decode()]


@pytest.mark.parametrize("other", ["correct horse batter", "correct horse battery ", "Correct horse", "", "\ud800"])
def test_another_passphrase_opens_nothing(backup: bytes, other: str) -> None:
    with pytest.raises((Unauthenticated, Invalid)) as caught:
        unwrap_keys(backup, other)
    assert PASSPHRASE not in str(caught.value)


def test_a_passphrase_is_one_however_it_is_composed() -> None:
    text = wrap_keys(Keyring.of(ONE), "gro\u00dfe \u00c4pfel", WORLD)
    assert unwrap_keys(text, "gro\u00dfe A\u0308pfel") == Keyring.of(ONE)


@pytest.mark.parametrize("short", ["", "1234567"])
def test_a_short_passphrase_is_refused(short: str) -> None:
    with pytest.raises(Invalid, match="at least 8 characters"):
        wrap_keys(Keyring.of(ONE), short, WORLD)


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b"{}", b"[]", b"\xff", pytest.param(ONE, id="a-key"), b'{"universal-registry-keys": 1}'],
)
def test_what_is_no_backup_is_one_clear_error(text: bytes) -> None:
    with pytest.raises(Invalid, match="not a backup of keys"):
        unwrap_keys(text, PASSPHRASE)


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (("universal-registry-keys",), 2, Invalid),
        (("fingerprint",), "0" * 16, Invalid),
        (("keys",), "gAAAAA", Unauthenticated),
        (("kdf", "name"), "none", Invalid),
        (("kdf", "n"), 1 << 40, Invalid),
        (("kdf", "n"), 3, Invalid),
        (("kdf", "r"), 1 << 20, Invalid),
        (("kdf", "p"), 1 << 20, Invalid),
        (("kdf", "p"), -1, Invalid),
        (("kdf", "salt"), "?", Invalid),
        (("kdf", "salt"), "x" * 10_000, Invalid),
        (("kdf", "n"), 1 << 15, Unauthenticated),
    ],
)
def test_a_forged_backup_costs_nothing_and_opens_nothing(
    backup: bytes, path: tuple[str, ...], value: object, error: type[Exception]
) -> None:
    found = json.loads(backup)
    node = found
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    with pytest.raises(error):
        unwrap_keys(json.dumps(found).encode(), PASSPHRASE)


def test_a_backup_that_holds_something_else_is_refused(backup: bytes) -> None:
    found = json.loads(backup)
    kdf = found["kdf"]
    derived = hashlib.scrypt(
        PASSPHRASE.encode(),
        salt=base64.b64decode(kdf["salt"]),
        n=kdf["n"],
        r=kdf["r"],
        p=kdf["p"],
        maxmem=2**28,
        dklen=32,
    )
    for inside in (b"[]", b"{}", b'{"primary": "00000000", "keys": []}', b'{"primary": 1, "keys": ["x"]}'):
        found["keys"] = Fernet(base64.urlsafe_b64encode(derived)).encrypt(inside).decode()
        with pytest.raises(Invalid, match="holds no keys"):
            unwrap_keys(json.dumps(found).encode(), PASSPHRASE)
