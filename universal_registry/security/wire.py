"""Sealing on the wire: JWE in compact form (RFC 7516), `dir` with A256GCM, under a key that one target alone shares.

The key is never one of those at rest: whoever holds it opens what was sent to that target, and nothing else. The
envelope is a standard one, so that a receiver in any language opens it with a library or a few lines.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from universal_registry.kernel.errors import Invalid, Malformed, TooLarge, VerifyError
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.loader import load_json
from universal_registry.kernel.world import World

SEALED_TYPE = "application/jose"
KEY_PREFIX = "sealkey_"
KEY_BYTES, IV_BYTES, TAG_BYTES = 32, 12, 16
_ALGORITHM, _ENCRYPTION = "dir", "A256GCM"
_MOST_HEADER = 1024


class Opened(NamedTuple):
    """What was in the envelope, and what it is: the content type that it would have had without sealing."""

    body: bytes
    content_type: str


def new_wire_key(world: World) -> str:
    """A new key for one target: `sealkey_` and 32 random bytes in url-safe base64."""
    return KEY_PREFIX + _encoded(world.secret_bytes(KEY_BYTES)).decode()


def parse_wire_key(text: str) -> bytes:
    """The 32 bytes of a `sealkey_...`. Raises Invalid, which never shows the text."""
    hint = "a sealing key is sealkey_ and 32 bytes in url-safe base64, without ="
    if not text.startswith(KEY_PREFIX):
        raise Invalid("the sealing key does not begin with sealkey_", hint=hint)
    encoded = text.removeprefix(KEY_PREFIX).encode(errors="replace")
    try:
        key = _decoded(encoded)
    except ValueError:
        raise Invalid("the sealing key is not url-safe base64 after sealkey_", hint=hint) from None
    if len(key) != KEY_BYTES:
        raise Invalid(f"the sealing key is {len(key)} bytes long", hint=hint)
    return key


def wire_kid(key: bytes) -> str:
    """The key's id in the header of what it seals: 16 hex digits."""
    return hashlib.sha256(key).hexdigest()[:16]


def wire_jwk(key: bytes) -> dict[str, Any]:
    """The key as a JWK, as JOSE libraries take it. It is secret."""
    return {"kty": "oct", "alg": _ENCRYPTION, "use": "enc", "kid": wire_kid(key), "k": _encoded(key).decode()}


def seal_for_wire(key: bytes, body: bytes, content_type: str, world: World) -> bytes:
    """The envelope, ASCII. Each call draws an initialisation vector of its own."""
    header = {"alg": _ALGORITHM, "enc": _ENCRYPTION, "kid": wire_kid(key), "cty": content_type}
    protected = _encoded(canonical(header))
    iv = world.secret_bytes(IV_BYTES)
    sealed = _cipher(key).encrypt(iv, body, protected)
    ciphertext, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    return b".".join((protected, b"", _encoded(iv), _encoded(ciphertext), _encoded(tag)))


def open_from_wire(keys: Iterable[bytes], envelope: bytes) -> Opened:
    """Open an envelope with whichever of the keys it names. Raises VerifyError, and nothing else."""
    from cryptography.exceptions import InvalidTag

    protected, iv, ciphertext, tag, header = _parts(envelope)
    key = next((each for each in keys if wire_kid(each) == header["kid"]), None)
    if key is None:
        hint = "ureg target key show NAME, where it is sent from"
        raise VerifyError(f"sealed with key {header['kid']}, which is not there", hint=hint)
    try:
        body = _cipher(key).decrypt(iv, ciphertext + tag, protected)
    except InvalidTag:
        raise VerifyError("the sealed body was changed: it does not open") from None
    return Opened(body, header["cty"])


def _parts(envelope: bytes) -> tuple[bytes, bytes, bytes, bytes, dict[str, str]]:
    pieces = envelope.split(b".")
    if len(pieces) != 5 or pieces[1]:
        raise VerifyError("the sealed body is no JWE in compact form", hint="five parts with dots between, two empty")
    try:
        iv, ciphertext, tag = (_decoded(pieces[number]) for number in (2, 3, 4))
        raw = _decoded(pieces[0])
    except ValueError:
        raise VerifyError("the sealed body is not url-safe base64") from None
    if len(iv) != IV_BYTES or len(tag) != TAG_BYTES:
        raise VerifyError("the sealed body has no initialisation vector of 12 bytes and tag of 16")
    return pieces[0], iv, ciphertext, tag, _header(raw)


def _header(raw: bytes) -> dict[str, str]:
    """The protected header: nothing is guessed that it does not say."""
    try:
        header = load_json(raw) if len(raw) <= _MOST_HEADER else None
    except (Malformed, TooLarge):
        header = None
    if not isinstance(header, dict):
        raise VerifyError("the header of the sealed body is no JSON object")
    if header.get("alg") != _ALGORITHM or header.get("enc") != _ENCRYPTION or header.keys() & {"crit", "zip"}:
        raise VerifyError("the sealed body is not sealed with dir and A256GCM")
    kid, content_type = header.get("kid", ""), header.get("cty", "")
    if not (isinstance(kid, str) and isinstance(content_type, str) and kid.isascii() and kid.isprintable()):
        raise VerifyError("the header of the sealed body names no key")
    return {"kid": kid[:64], "cty": content_type}


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # lazily: few commands need it

    return AESGCM(key)


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decoded(data: bytes) -> bytes:
    """Raises ValueError for anything but the one form of it."""
    try:
        raw = base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if _encoded(raw) != data:
        raise ValueError("not in its one form")
    return raw
