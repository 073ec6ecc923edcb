"""Access tokens: `ur_` and 32 random bytes. Stores keep only their hash."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from universal_registry.kernel.errors import Unauthenticated
from universal_registry.kernel.world import World

TOKEN_PREFIX = "ur_"  # noqa: S105 - a public prefix, no secret
_TOKEN = re.compile(r"ur_[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")  # the last character holds four bits only
_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE | re.ASCII)
HINT = "send the token of config/admin.token as the header 'Authorization: Bearer ur_...'"


def new_token(world: World) -> str:
    """A new token. It is shown once and never stored."""
    return TOKEN_PREFIX + base64.urlsafe_b64encode(world.secret_bytes(32)).rstrip(b"=").decode()


def is_token(text: str) -> bool:
    """Whether it has the form of one."""
    return _TOKEN.fullmatch(text) is not None


def hash_token(token: str) -> str:
    """What the store keeps: 64 hex digits. A plain hash is enough for 256 random bits."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def token_matches(token: str, stored_hash: str) -> bool:
    """Whether a token has this hash, in constant time."""
    return hmac.compare_digest(hash_token(token).encode(), stored_hash.encode(errors="surrogatepass"))


def parse_bearer(header: str | None) -> str:
    """The token of an Authorization header. Raises Unauthenticated, which never shows the header."""
    if header is None or header == "":
        raise Unauthenticated("a token is needed", hint=HINT)
    match = _BEARER.fullmatch(header.strip(" \t"))
    if match is None:
        raise Unauthenticated("the Authorization header is not a bearer token", hint=HINT)
    if not is_token(match[1]):
        raise Unauthenticated("the token is not one of ours: it must begin with ur_", hint=HINT)
    return match[1]
