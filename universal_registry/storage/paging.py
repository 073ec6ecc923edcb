"""Page tokens: the key after which the next page begins. Opaque to clients."""

from __future__ import annotations

import base64
import binascii

import msgspec

from universal_registry.kernel.errors import Malformed
from universal_registry.kernel.ids import Key

_decoder = msgspec.json.Decoder(tuple[str, str, str])


def encode_page(last: Key) -> str:
    """The token of the page after `last`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(tuple(last))).decode().rstrip("=")


def decode_page(token: str) -> Key:
    """The key after which the page begins. Raises Malformed."""
    try:
        return Key(*_decoder.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise Malformed(
            f"page {token[:40]!r} is not one that was handed out here", hint="use `next` as it came"
        ) from None
