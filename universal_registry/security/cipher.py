"""Sealing at rest: bytes to `<kid>:<Fernet token>`, bound to the place that they belong to.

Fernet has no associated data: a token moved to another row would open there. So the context (which store, row, field)
is written into the plaintext, length first, and compared when it is opened.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from universal_registry.kernel.errors import Corrupt, Invalid
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.world import World
from universal_registry.security.ed25519 import SigningKey
from universal_registry.security.keyring import Keyring

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

SecretPath = tuple[str, ...]
KEPT = {"$secret": "kept"}
"""What readers see instead of a secret; a writer who sends it means: unchanged."""

FINGERPRINT_KEY_BYTES = 32
_FINGERPRINT_CONTEXT = "store\nfingerprint-key"
_SEAL = r"([0-9a-f]{8}):([A-Za-z0-9_-]+=*)"
_SECRET_SEAL = re.compile(rf'(?<="\$sealed":"){_SEAL}(?=")')
_PAYLOAD_SEAL = re.compile(rf'(?<="payload":"){_SEAL}(?=")')
_SEALED_KEYS = {"$sealed", "$mac"}


class Box:
    """Seals with the primary key of a keyring and opens with any of its keys.

    `use` replaces the keyring, for all who share the box. `reread`: asked once for a newer keyring when a value was
    sealed with a key that is not in this one (another process has rotated).
    """

    def __init__(self, keyring: Keyring, reread: Callable[[], Keyring] | None = None) -> None:
        self.keyring = keyring
        self.reread = reread
        self._ciphers: dict[str, Fernet] = {}

    def use(self, keyring: Keyring) -> None:
        """From now on, these keys."""
        self.keyring = keyring
        self._ciphers = {}

    def seal(self, plaintext: bytes, context: str) -> str:
        """`<kid>:<token>`. It opens only under the same context."""
        return self._sealed(_bound(context) + plaintext)

    def open(self, sealed: str, context: str) -> bytes:
        """The plaintext. Raises Corrupt for an unknown key, a changed token or another context."""
        plain, bound = self._opened(sealed), _bound(context)
        if not hmac.compare_digest(plain[: len(bound)], bound):
            raise Corrupt("a sealed value was moved: it belongs to another place", kid=sealed[:8])
        return plain[len(bound) :]

    def check(self, sealed: str) -> None:
        """Raises Corrupt unless it opens; whether it is in its own place only `open` can say."""
        self._opened(sealed)

    def sealed_anew(self, sealed: str) -> str:
        """The same value, bound to the same place, sealed with the primary key. Raises Corrupt."""
        if sealed.startswith(self.keyring.primary + ":"):
            return sealed
        return self._sealed(self._opened(sealed))

    def document_anew(self, text: str, *, event: bool = False) -> str:
        """The JSON text of a record, or the body of an event, with its seals made anew and all else as it is.

        A seal that does not open stays: `verify` names it, and its key is not retired.
        """
        return (_PAYLOAD_SEAL if event else _SECRET_SEAL).sub(self._anew_or_left, text)

    def _anew_or_left(self, match: re.Match[str]) -> str:
        try:
            return self.sealed_anew(match[0])
        except Corrupt:
            return match[0]

    def _opened(self, sealed: str) -> bytes:
        from cryptography.fernet import InvalidToken

        kid, _, token = sealed.partition(":")
        cipher = self._cipher(kid)
        changed = Corrupt("a sealed value was changed or cut: it does not open", kid=kid)
        if not _is_canonical(token):
            raise changed
        try:
            return cipher.decrypt(token)
        except InvalidToken:
            raise changed from None

    def _sealed(self, data: bytes) -> str:
        kid = self.keyring.primary
        return f"{kid}:{self._cipher(kid).encrypt(data).decode()}"

    def _cipher(self, kid: str) -> Fernet:
        cipher = self._ciphers.get(kid)
        if cipher is None:
            from cryptography.fernet import Fernet  # lazily: 30 ms that most command lines never need

            if kid not in self.keyring.keys and self.reread is not None:
                self.use(self.reread())
            cipher = self._ciphers[kid] = Fernet(self.keyring.key(kid))
        return cipher


class Sealer(Box):
    """A Box that also knows the store's fingerprint key, and so can seal the secrets of records.

    The fingerprint key (32 bytes) outlives rotation of the sealing keys, so that equal secrets keep equal fingerprints.
    """

    def __init__(self, keyring: Keyring, fingerprint_key: bytes) -> None:
        if len(fingerprint_key) != FINGERPRINT_KEY_BYTES:
            raise Invalid(f"the fingerprint key is {len(fingerprint_key)} bytes long", hint="it must be 32")
        super().__init__(keyring)
        self._fingerprint_key = fingerprint_key

    def mac(self, value: bytes) -> str:
        """64 hex digits that stand for a secret in fingerprints: comparable, and not to be guessed without the key."""
        return hmac.digest(self._fingerprint_key, value, "sha256").hex()

    def derived_key(self, purpose: str) -> bytes:
        """32 bytes for one purpose, of this store alone and the same each time: rotation of the keys leaves them."""
        # Secrets are hashed as JSON, which never begins with a NUL: no `mac` that is shown can be such a key.
        return hmac.digest(self._fingerprint_key, b"\0" + purpose.encode(), "sha256")

    @cached_property
    def signing_key(self) -> SigningKey:
        """The Ed25519 key with which this store's registry signs what it sends."""
        return SigningKey(self.derived_key("webhook signing key"))

    def seal_secrets(self, spec: dict[str, Any], paths: Iterable[SecretPath], record_key: str) -> dict[str, Any]:
        """The spec with each secret as `{"$sealed", "$mac"}`.

        `record_key` names the record for good (it is part of the context). `{"$secret": "kept"}` stays as it is; what
        comes sealed must open here and now, else Invalid. The input is left alone.
        """

        def seal(value: Any, path: SecretPath) -> Any:
            if value is None or value == KEPT:
                return value
            context = secret_context(record_key, path)
            if _is_marked(value):
                return self._checked(value, context, path)
            data = canonical(value)
            return {"$sealed": self.seal(data, context), "$mac": self.mac(data)}

        return _replace_all(spec, paths, seal)

    def reveal_secrets(self, spec: dict[str, Any], paths: Iterable[SecretPath], record_key: str) -> dict[str, Any]:
        """The spec in clear. Raises Corrupt for a seal that does not open. The input is left alone."""

        def reveal(value: Any, path: SecretPath) -> Any:
            if not is_sealed(value):
                return value
            return orjson.loads(self.open(value["$sealed"], secret_context(record_key, path)))

        return _replace_all(spec, paths, reveal)

    def _checked(self, value: dict[str, Any], context: str, path: SecretPath) -> dict[str, Any]:
        where = ".".join(path)
        if not is_sealed(value):
            raise Invalid(
                f"{where} is neither a secret nor a sealed one",
                hint='send the secret itself, or {"$secret": "kept"}',
                path=where,
            )
        try:
            data = self.open(value["$sealed"], context)
        except Corrupt as error:
            raise Invalid(
                f"{where} does not open here: {error.message}",
                hint="a sealed value belongs to one record of one store; send the secret itself",
                path=where,
            ) from None
        if not hmac.compare_digest(self.mac(data), value["$mac"]):
            raise Invalid(f"the $mac of {where} is not that of its secret", hint="send the secret itself", path=where)
        # What was exported before a rotation must not bring the old key back into use.
        return {"$sealed": self.sealed_anew(value["$sealed"]), "$mac": value["$mac"]}


def redact_secrets(spec: dict[str, Any], paths: Iterable[SecretPath]) -> dict[str, Any]:
    """The spec as readers see it: `{"$secret": "kept"}` where a secret is, sealed or not. The input is left alone."""
    return _replace_all(spec, paths, lambda value, _: value if value is None else dict(KEPT))


def commitment_view(value: Any) -> Any:
    """The value with each sealed secret as its `$mac`, so that ciphertext never enters a fingerprint."""
    if isinstance(value, dict):
        if is_sealed(value):
            return {"$mac": value["$mac"]}
        return {name: commitment_view(item) for name, item in value.items()}
    if isinstance(value, list):
        return [commitment_view(item) for item in value]
    return value


def is_sealed(value: Any) -> bool:
    """True for `{"$sealed": text, "$mac": text}` and nothing else."""
    return (
        isinstance(value, dict)
        and value.keys() == _SEALED_KEYS
        and isinstance(value["$sealed"], str)
        and isinstance(value["$mac"], str)
        and value["$mac"].isascii()
    )


def secret_context(record_key: str, path: SecretPath) -> str:
    """Where a secret belongs. No name holds a line break, so that no two places share a context."""
    return f"{record_key}\n{'.'.join(path)}"


def new_fingerprint_key(world: World) -> bytes:
    """32 bytes, made once per store."""
    return world.secret_bytes(FINGERPRINT_KEY_BYTES)


def seal_fingerprint_key(keyring: Keyring, key: bytes) -> str:
    """The fingerprint key as the store keeps it. Rotation seals it anew."""
    return Box(keyring).seal(key, _FINGERPRINT_CONTEXT)


def open_fingerprint_key(keyring: Keyring, sealed: str) -> bytes:
    """The fingerprint key from what the store keeps. Raises Corrupt."""
    return Box(keyring).open(sealed, _FINGERPRINT_CONTEXT)


def _bound(context: str) -> bytes:
    data = context.encode()
    return len(data).to_bytes(4, "big") + data


def _is_canonical(token: str) -> bool:
    """Fernet reads base64 kindly: stray characters and last bits pass. A seal has one form only."""
    try:
        raw = token.encode("ascii")
        return base64.urlsafe_b64encode(base64.urlsafe_b64decode(raw)) == raw
    except (UnicodeEncodeError, binascii.Error):
        return False


def _is_marked(value: Any) -> bool:
    return isinstance(value, dict) and ("$sealed" in value or "$secret" in value or "$mac" in value)


def _replace_all(
    spec: dict[str, Any], paths: Iterable[SecretPath], change: Callable[[Any, SecretPath], Any]
) -> dict[str, Any]:
    result: dict[str, Any] = spec
    for path in paths:
        result = _replace(result, path, path, change)
    return dict(spec) if result is spec else result


def _replace(node: Any, rest: SecretPath, path: SecretPath, change: Callable[[Any, SecretPath], Any]) -> Any:
    """A copy of the node with the value at the path changed; lists on the way are walked, other branches are shared."""
    if not rest:
        return change(node, path)
    if isinstance(node, list):
        return [_replace(item, rest, path, change) for item in node]
    if isinstance(node, dict) and rest[0] in node:
        return {**node, rest[0]: _replace(node[rest[0]], rest[1:], path, change)}
    return node
