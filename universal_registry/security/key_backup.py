"""All keys of a home in one text, wrapped under a passphrase. Pure.

The text is JSON: `universal-registry-keys` (1), `fingerprint`, `kdf` (`name` scrypt, `salt` in base64, `n`, `r`, `p`)
and `keys`. scrypt of the passphrase (UTF-8, NFC) with that salt gives 32 bytes; as url-safe base64 they are the Fernet
key that opens `keys`: `{"primary": kid, "keys": [key, ...]}` as JSON. So any Fernet opens it, without this program.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from typing import Any

import msgspec
import orjson

from universal_registry.kernel.errors import Invalid, RegistryError, Unauthenticated
from universal_registry.kernel.world import World
from universal_registry.security.keyring import Keyring, fingerprint, kid_of, parse_key

LEAST_PASSPHRASE = 8
_VERSION = 1
_N, _R, _P = 1 << 16, 8, 2
_MOST_MEMORY = 1 << 28
_HINT = "give a file that `ureg key backup` wrote"


class _Kdf(msgspec.Struct, frozen=True):
    name: str
    salt: str
    n: int
    r: int
    p: int


class _Backup(msgspec.Struct, frozen=True, rename={"version": "universal-registry-keys"}):
    version: int
    fingerprint: str
    kdf: _Kdf
    keys: str


def wrap_keys(ring: Keyring, passphrase: str, world: World) -> bytes:
    """The text, with a line break at its end. Raises Invalid for a passphrase that is too short."""
    from cryptography.fernet import Fernet

    if len(passphrase) < LEAST_PASSPHRASE:
        raise Invalid("the passphrase is too short", hint=f"at least {LEAST_PASSPHRASE} characters")
    kdf = _Kdf("scrypt", base64.b64encode(world.secret_bytes(16)).decode(), _N, _R, _P)
    inside = orjson.dumps({"primary": ring.primary, "keys": [key.decode() for key in ring.keys.values()]})
    sealed = Fernet(_derived(passphrase, kdf)).encrypt(inside).decode()
    backup = _Backup(_VERSION, ring.fingerprint, kdf, sealed)
    return msgspec.json.format(msgspec.json.encode(backup), indent=2) + b"\n"


def unwrap_keys(text: bytes, passphrase: str) -> Keyring:
    """The keys. Raises Invalid (no such text), Unauthenticated (another passphrase, or the text was changed)."""
    from cryptography.fernet import Fernet, InvalidToken

    try:
        backup = msgspec.json.decode(text, type=_Backup)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Invalid("this is not a backup of keys", hint=_HINT) from None
    if backup.version != _VERSION:
        raise Invalid(f"this backup of keys has version {backup.version}, not {_VERSION}", hint="use a newer program")
    try:
        inside = Fernet(_derived(passphrase, backup.kdf)).decrypt(backup.keys)
    except InvalidToken:
        raise Unauthenticated(
            "the passphrase does not open this backup", hint="another passphrase, or the file was changed"
        ) from None
    return _ring(orjson.loads(inside), backup.fingerprint)


def _ring(inside: Any, expected: str) -> Keyring:
    try:
        keys = {kid_of(key): key for key in map(parse_key, inside["keys"])}
        ring = Keyring(inside["primary"], keys)
    except (KeyError, TypeError, RegistryError):
        raise Invalid("this backup of keys holds no keys", hint=_HINT) from None
    if fingerprint(ring.key(ring.primary)) != expected:
        raise Invalid("the fingerprint of this backup is not that of its key", hint=_HINT)
    return ring


def _derived(passphrase: str, kdf: _Kdf) -> bytes:
    bad = Invalid("the key derivation that this backup names cannot be used", hint=_HINT)
    # The bounds keep a forged file from taking all memory and time.
    if kdf.name != "scrypt" or not (1 <= kdf.r <= 32 and 1 <= kdf.p <= 16 and len(kdf.salt) <= 100):
        raise bad
    try:
        salt = base64.b64decode(kdf.salt, validate=True)
        password = unicodedata.normalize("NFC", passphrase).encode()
        key = hashlib.scrypt(password, salt=salt, n=kdf.n, r=kdf.r, p=kdf.p, maxmem=_MOST_MEMORY, dklen=32)
    except (ValueError, OverflowError):
        raise bad from None
    return base64.urlsafe_b64encode(key)
