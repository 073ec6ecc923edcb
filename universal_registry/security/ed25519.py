"""Ed25519 keys of Standard Webhooks v1a: the sender signs with a key that receivers cannot sign with.

The text forms are those of the standard: `whpk_` and the public key in base64. The private key never leaves the store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from universal_registry.kernel.errors import Invalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_PREFIX = "whpk_"
KEY_BYTES = 32
SIGNATURE_BYTES = 64


class SigningKey:
    """The key that a registry signs with. `seed`: 32 bytes, from which it is made the same each time."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise Invalid(f"the seed of a signing key is {len(seed)} bytes long", hint="it must be 32")
        self._private = _private(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._private.sign(message)


def public_text(public: bytes) -> str:
    """The public key as `whpk_...`."""
    return PUBLIC_PREFIX + base64.b64encode(public).decode()


def public_jwk(public: bytes) -> dict[str, Any]:
    """The public key as a JWK (RFC 8037)."""
    coordinate = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    kid = hashlib.sha256(public).hexdigest()[:16]
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": coordinate}


def parse_public_key(text: str) -> bytes:
    """The 32 bytes of a `whpk_...` key. Raises Invalid."""
    hint = "a public key is whpk_ and 32 bytes in base64"
    if not text.startswith(PUBLIC_PREFIX):
        raise Invalid("the public key does not begin with whpk_", hint=hint)
    try:
        public = base64.b64decode(text.removeprefix(PUBLIC_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("the public key is not base64 after whpk_", hint=hint) from None
    if len(public) != KEY_BYTES:
        raise Invalid(f"the public key is {len(public)} bytes long", hint=hint)
    return public


def is_signature(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the signature is that of the key's owner on the message."""
    from cryptography.exceptions import InvalidSignature

    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        _public(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _private(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # lazily: few commands need it

    return Ed25519PrivateKey.from_private_bytes(seed)


@lru_cache(maxsize=64)
def _public(public: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(public)
