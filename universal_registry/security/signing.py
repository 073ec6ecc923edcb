"""Standard Webhooks v1 and v1a: signing what is sent, and checking what is received.

The signature is over `<id>.<timestamp>.<body>`, the exact bytes of the body: HMAC-SHA256 with a shared secret (v1), or
Ed25519 with the sender's key (v1a). A message bears one for each secret and key, separated by exactly one space.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from universal_registry.kernel.errors import Invalid, VerifyError
from universal_registry.kernel.world import World
from universal_registry.security.ed25519 import SigningKey, is_signature

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

SECRET_PREFIX = "whsec_"  # noqa: S105 - a public prefix, no secret
TOLERANCE_SECONDS = 300
ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"

_NAMES = frozenset((ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
_MOST_HEADER = 2048
_MOST_ENTRIES = 16
_SECRET_BYTES = range(24, 65)
_BLOCK_BYTES = 64  # of SHA-256
_ID = re.compile(r"[!-\-/-~]{1,256}")  # printable ASCII; no dot, which separates what is signed
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}")
_ENTRY = re.compile(r"[a-z0-9]{1,8},[A-Za-z0-9+/]{1,512}={0,2}")


class Headers(Protocol):
    """Received headers: a dict, a multidict, or whatever yields names and values. Repeated ones are to be yielded."""

    def items(self) -> Iterable[tuple[Any, Any]]: ...


@dataclass(frozen=True, slots=True)
class Verified:
    """An authentic message: its id (the same on every attempt) and the epoch second of this attempt."""

    id: str
    timestamp: int


def new_secret(world: World) -> str:
    """A new signing secret, `whsec_` and 32 random bytes in base64."""
    return SECRET_PREFIX + base64.b64encode(world.secret_bytes(32)).decode()


def parse_secret(text: str) -> bytes:
    """The bytes of a `whsec_...` secret, 24 to 64 of them. Raises Invalid, which never shows the text."""
    hint = "a signing secret is whsec_ and 24 to 64 bytes in base64"
    if not text.startswith(SECRET_PREFIX):
        raise Invalid("the signing secret does not begin with whsec_", hint=hint)
    encoded = text.removeprefix(SECRET_PREFIX)
    try:
        secret = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("the signing secret is not base64 after whsec_", hint=hint) from None
    if len(secret) not in _SECRET_BYTES:
        raise Invalid(f"the signing secret is {len(secret)} bytes long", hint=hint)
    return secret


def sign(secret: bytes, msg_id: str, timestamp: int, body: bytes) -> str:
    """One entry of the signature header, `v1,<base64>`. `timestamp` is the epoch second of the attempt."""
    return _entry(secret, _content(msg_id, timestamp, body))


def signed_headers(
    secrets: Iterable[bytes], msg_id: str, timestamp: int, body: bytes, key: SigningKey | None = None
) -> dict[str, str]:
    """The three headers of a message, with a v1 for each secret (the newest first), and a v1a if there is a key."""
    content = _content(msg_id, timestamp, body)
    entries = [_entry(secret, content) for secret in secrets]
    if key is not None:
        entries.append("v1a," + base64.b64encode(key.sign(content)).decode())
    if not entries:
        raise Invalid("there is no secret to sign with")
    return {ID_HEADER: msg_id, TIMESTAMP_HEADER: str(timestamp), SIGNATURE_HEADER: " ".join(entries)}


def verify(
    headers: Headers,
    body: bytes,
    secrets: Sequence[bytes],
    now: datetime,
    tolerance: int = TOLERANCE_SECONDS,
    *,
    public_keys: Sequence[bytes] = (),
) -> Verified:
    """Check a received message against any of the secrets (v1) and public keys (v1a).

    `now` is aware, `tolerance` in seconds either way. Raises VerifyError, and nothing else, for whatever is missing,
    malformed, forged or out of time.
    """
    values = _our_headers(headers)
    msg_id, stamp = values[ID_HEADER], values[TIMESTAMP_HEADER]
    if not _ID.fullmatch(msg_id):
        raise VerifyError("webhook-id is not printable ASCII without a dot")
    if not _TIMESTAMP.fullmatch(stamp):
        raise VerifyError("webhook-timestamp is not an integer")
    timestamp = int(stamp)
    offered = _signatures(values[SIGNATURE_HEADER])
    content = f"{msg_id}.{timestamp}.".encode() + body
    good = 0
    for secret in secrets:  # every pair is compared, so that the time tells nothing about which one matched
        wanted = hmac.digest(secret, content, "sha256")
        for signature in offered["v1"]:
            good |= hmac.compare_digest(wanted, signature)
    for public in public_keys:  # nothing here is secret
        good |= any(is_signature(public, signature, content) for signature in offered["v1a"])
    if not good:
        raise _no_match(offered, secrets, public_keys)
    age = now.timestamp() - timestamp
    if abs(age) > tolerance:
        when = "old" if age > 0 else "in the future"
        raise VerifyError(f"the message is {abs(age):.0f} s {when}", hint=f"at most {tolerance} s; check both clocks")
    return Verified(msg_id, timestamp)


class ReplayGuard:
    """Remembers the ids of messages for `keep` seconds, at most `capacity` of them. The caller passes the time.

    Keep at least twice the tolerance of `verify`: a message stamped in the future stays valid that long. When it is
    full the oldest is forgotten early and counted in `forgotten`.
    """

    def __init__(self, capacity: int = 100_000, keep: float = 2 * TOLERANCE_SECONDS) -> None:
        if capacity < 1 or keep <= 0:
            raise Invalid("a replay guard needs room for one id and a time to keep it")
        self.forgotten = 0
        self._capacity, self._keep = capacity, keep
        self._until: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def claim(self, msg_id: str, now: datetime) -> bool:
        """True when the id is new: the caller now handles the message. False when it was claimed before."""
        moment = now.timestamp()
        while self._until and next(iter(self._until.values())) <= moment:
            self._until.popitem(last=False)
        if self._until.get(msg_id, moment) > moment:
            return False
        self._until.pop(msg_id, None)
        if len(self._until) >= self._capacity:
            self._until.popitem(last=False)
            self.forgotten += 1
        self._until[msg_id] = moment + self._keep
        return True

    def release(self, msg_id: str) -> None:
        """Handling failed: the sender's next attempt bears the same id and must be let in."""
        self._until.pop(msg_id, None)


def _content(msg_id: str, timestamp: int, body: bytes) -> bytes:
    """The bytes that are signed. Raises Invalid for an id or a time that no receiver could read back."""
    if not _ID.fullmatch(msg_id):
        raise Invalid(f"message id {msg_id[:80]!a} cannot be signed", hint="1 to 256 of printable ASCII, no dot")
    if not 0 <= timestamp < 10**12:
        raise Invalid(f"timestamp {timestamp} is not an epoch second")
    return f"{msg_id}.{timestamp}.".encode() + body


def _entry(secret: bytes, content: bytes) -> str:
    inner, outer = (each.copy() for each in _begun(secret))
    inner.update(content)
    outer.update(inner.digest())
    return "v1," + base64.b64encode(outer.digest()).decode()


@lru_cache(maxsize=1 << 12)
def _begun(secret: bytes) -> tuple[Digest, Digest]:
    """HMAC-SHA256 (RFC 2104) under the secret, begun: what each message goes on from costs half as much as from the
    secret. Raises Invalid."""
    if len(secret) not in _SECRET_BYTES:
        raise Invalid(f"the signing secret is {len(secret)} bytes long", hint="24 to 64 bytes")
    block = secret.ljust(_BLOCK_BYTES, b"\0")  # none is longer
    return sha256(bytes(each ^ 0x36 for each in block)), sha256(bytes(each ^ 0x5C for each in block))


def _no_match(
    offered: Mapping[str, Sequence[bytes]], secrets: Sequence[bytes], public_keys: Sequence[bytes]
) -> VerifyError:
    """Says so when the message is signed in another way than the receiver is set up for."""
    if not (offered["v1"] and secrets) and not (offered["v1a"] and public_keys):
        bears = " and ".join(version for version in ("v1", "v1a") if offered[version]) or "no known version"
        return VerifyError(
            f"no signature matches: the message bears {bears}, which is not what is checked here",
            hint="v1 needs the shared secret (whsec_...), v1a the sender's public key (whpk_...)",
        )
    return VerifyError("no signature matches", hint="check that both sides have the same secret and the exact body")


def _our_headers(headers: Headers) -> dict[str, str]:
    """The three headers, each there exactly once whatever its case (a multidict yields repeated ones)."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower() if isinstance(name, str) else ""
        if lower not in _NAMES:
            continue
        if lower in found:
            raise VerifyError(f"{lower} is there twice")
        if not isinstance(value, str) or len(value) > _MOST_HEADER or not value.isascii():
            raise VerifyError(f"{lower} is not ASCII text of at most {_MOST_HEADER} characters")
        found[lower] = value
    for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER):
        if name not in found:
            raise VerifyError(f"{name} is missing", hint="messages are signed as Standard Webhooks says")
    return found


def _signatures(header: str) -> dict[str, list[bytes]]:
    """The v1 and v1a signatures of the header. Entries of other versions are skipped, malformed ones refused."""
    entries = header.split(" ")
    if len(entries) > _MOST_ENTRIES or not all(_ENTRY.fullmatch(entry) for entry in entries):
        raise VerifyError("webhook-signature is malformed", hint="entries such as v1,<base64>, one space between")
    signatures: dict[str, list[bytes]] = {"v1": [], "v1a": []}
    for entry in entries:
        version, _, encoded = entry.partition(",")
        if version not in signatures:
            continue
        try:
            signature = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise VerifyError("webhook-signature is not base64") from None
        if base64.b64encode(signature).decode() != encoded:
            raise VerifyError("webhook-signature is not base64 in its one form")
        signatures[version].append(signature)
    return signatures
