"""Encryption keys by their short id. Pure: key files are the business of `storage/keyfile.py`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from universal_registry.kernel.errors import Corrupt, Invalid
from universal_registry.kernel.world import World

KEY_BYTES = 32
_KEY_CHARS = 44
_KID = re.compile(r"[0-9a-f]{8}")


def kid_of(key: bytes) -> str:
    """The id of a key: 8 hex digits, written beside every token sealed with it."""
    return hashlib.sha256(key).hexdigest()[:8]


def fingerprint(key: bytes) -> str:
    """16 hex digits that name a key to people; the store keeps them to notice a foreign key. Begins with the kid."""
    return hashlib.sha256(key).hexdigest()[:16]


def new_key(world: World) -> bytes:
    """A new Fernet key in its text form (44 bytes of url-safe base64)."""
    return base64.urlsafe_b64encode(world.secret_bytes(KEY_BYTES))


def parse_key(text: bytes | str) -> bytes:
    """The key of a key file: exactly one url-safe base64 Fernet key of 32 bytes, blanks around it allowed.

    Returns its 44 ASCII bytes, as `cryptography.fernet.Fernet` takes them. Raises Invalid, which never shows the text.
    """
    raw = text.encode(errors="replace") if isinstance(text, str) else bytes(text)
    key = raw.strip(b" \t\r\n")
    if not key:
        raise Invalid("the key is empty")
    try:
        decoded = base64.b64decode(key, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    # Encoded again it must be the same: base64 readers let stray last bits pass, and one key must have one id.
    if len(key) != _KEY_CHARS or len(decoded) != KEY_BYTES or base64.urlsafe_b64encode(decoded) != key:
        raise Invalid(
            f"this is not a Fernet key ({len(raw)} bytes)",
            hint="a key is 32 bytes as url-safe base64: 44 characters ending in =",
        )
    return key


@dataclass(frozen=True, slots=True)
class Keyring:
    """The key that seals (`primary`, a kid) and all keys that open, by kid. Its repr shows ids only."""

    primary: str
    keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if self.primary not in self.keys:
            raise Invalid(f"the keyring has no key {self.primary!r}")
        for kid, key in self.keys.items():
            if kid != kid_of(key):
                raise Invalid(f"key id {kid!r} does not belong to its key")

    @classmethod
    def of(cls, primary: bytes, older: Iterable[bytes] = ()) -> Keyring:
        """A keyring of keys as `parse_key` returns them."""
        keys: dict[str, bytes] = {}
        for key in (primary, *older):
            if keys.setdefault(kid_of(key), key) != key:
                raise Invalid(f"two different keys have the id {kid_of(key)}", hint="make another key")
        return cls(kid_of(primary), keys)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the primary key."""
        return fingerprint(self.keys[self.primary])

    def sealing_with(self, kid: str) -> Keyring:
        """The same keys, with this one as the primary. Raises Invalid when it is not among them."""
        return Keyring(kid, self.keys)

    def having(self, *keys: bytes) -> Keyring:
        """With these keys besides, which open and do not seal."""
        return Keyring.of(self.keys[self.primary], (*self.keys.values(), *keys))

    def without(self, kid: str) -> Keyring:
        """Without a key that is not the primary."""
        return Keyring(self.primary, {each: key for each, key in self.keys.items() if each != kid})

    def named(self, fingerprint_: str) -> str | None:
        """The id of the key with this fingerprint; None when it is not here."""
        return next((kid for kid, key in self.keys.items() if fingerprint(key) == fingerprint_), None)

    def key(self, kid: str) -> bytes:
        """The key with this id. Raises Corrupt when it is not there."""
        key = self.keys.get(kid)
        if key is not None:
            return key
        if not _KID.fullmatch(kid):  # it may be a secret that was never sealed: it is not shown
            raise Corrupt("a sealed value has no key id", hint="it must read <key id>:<token>")
        raise Corrupt(
            f"sealed with key {kid}, which is not there (known: {', '.join(sorted(self.keys))})",
            hint="put the older key into config/keys/",
            kid=kid,
        )
