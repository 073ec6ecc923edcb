"""Receiving webhooks in your own program: checked, opened, and each handled once.

    door = WebhookReceiver(secrets=["whsec_..."], seal_keys=["sealkey_..."])
    message = door.open(request.headers, request.body)   # VerifyError: answer 401
    with Inbox(connection).handling(message) as verdict:
        if verdict is Verdict.NEW:
            ...                                          # your effect, on the same connection
    # answer 204

Whatever is wrong with a message, the error is VerifyError, and its text says what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid, Malformed, TooLarge, VerifyError
from universal_registry.kernel.limits import Limits
from universal_registry.kernel.loader import load_json
from universal_registry.kernel.world import SystemWorld, World
from universal_registry.security.ed25519 import parse_public_key
from universal_registry.security.signing import TOLERANCE_SECONDS, Headers, ReplayGuard, Verified, parse_secret, verify
from universal_registry.security.wire import SEALED_TYPE, open_from_wire, parse_wire_key

__all__ = ["Message", "ReplayGuard", "VerifyError", "WebhookReceiver"]

_CLOUDEVENTS = "application/cloudevents+json"
_STATE = ("created", "updated", "deleted")
_LIMITS = Limits(body=16 << 20, keys=1_000_000)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An authentic message. `id`: the same on every attempt. `timestamp`: the epoch second of this attempt.

    `body`: what was sealed, opened, and `content_type` what it is. The rest is of the CloudEvent, empty (None) where
    the target's format is another: `data` is then the JSON value of the body, if it is one.
    """

    id: str
    timestamp: int
    body: bytes
    content_type: str
    type: str = ""
    source: str = ""
    subject: str = ""
    sequence: str = ""
    data: Any = None

    @property
    def is_state(self) -> bool:
        """Whether it is a record's new state, which an older one must not replace; else an event of its own."""
        parts = self.type.split(".")
        return len(parts) == 4 and parts[0] == "registry" and parts[2] in _STATE

    @property
    def challenge(self) -> str | None:
        """What `ureg target validate` wants to read in the answer; None when this is something else."""
        return challenge_in(self.type, self.data)


def challenge_in(event_type: str, data: Any) -> str | None:
    """The challenge that an event holds."""
    wanted = data.get("challenge") if isinstance(data, dict) else None
    return wanted if event_type == "registry.target.challenge.v1" and isinstance(wanted, str) else None


class WebhookReceiver:
    """Checks and opens what arrives.

    `secrets`: `whsec_...`, each of which may have signed. `public_keys`: `whpk_...` of senders that sign with Ed25519.
    `seal_keys`: `sealkey_...`. `tolerance`: seconds that a message may be old, or ahead. Raises Invalid for a key that
    is none, without showing it, and when there is nothing to check signatures with.
    """

    def __init__(
        self,
        *,
        secrets: Sequence[str] = (),
        public_keys: Sequence[str] = (),
        seal_keys: Sequence[str] = (),
        tolerance: int = TOLERANCE_SECONDS,
        world: World | None = None,
    ) -> None:
        if not secrets and not public_keys:
            raise Invalid("there is nothing to check signatures with", hint="give secrets or public_keys")
        self._secrets = [parse_secret(each) for each in secrets]
        self._public_keys = [parse_public_key(each) for each in public_keys]
        self._seal_keys = [parse_wire_key(each) for each in seal_keys]
        self._tolerance = tolerance
        self._world = world or SystemWorld()

    def verify(self, headers: Headers, body: bytes) -> Verified:
        """Check the signature and the time; `body`: the exact bytes that came. Raises VerifyError."""
        now = self._world.now()
        return verify(headers, body, self._secrets, now, self._tolerance, public_keys=self._public_keys)

    def open(self, headers: Headers, body: bytes) -> Message:
        """Check, unseal and read a message. Raises VerifyError, and nothing else, whatever it is given."""
        verified = self.verify(headers, body)
        return read_message(headers, body, self._seal_keys, verified)


def read_message(headers: Headers, body: bytes, seal_keys: Sequence[bytes], verified: Verified) -> Message:
    """The message of a body that is authentic (`verified`), or taken for that. Raises VerifyError."""
    content_type = _content_type(headers)
    if _media_type(content_type) == SEALED_TYPE:
        body, content_type = open_from_wire(seal_keys, body)
    fields: dict[str, Any] = {}
    media_type = _media_type(content_type)
    value = _json(body, media_type)
    if isinstance(value, dict) and "specversion" in value:
        fields = {name: _text(value, name) for name in ("type", "source", "subject", "sequence")}
        value = value.get("data")
    elif media_type == _CLOUDEVENTS:
        raise VerifyError("the body is no CloudEvent")
    return Message(
        id=verified.id, timestamp=verified.timestamp, body=body, content_type=content_type, data=value, **fields
    )


def _content_type(headers: Headers) -> str:
    found = [value for name, value in headers.items() if isinstance(name, str) and name.lower() == "content-type"]
    if len(found) > 1:
        raise VerifyError("content-type is there twice")
    return found[0] if found and isinstance(found[0], str) else ""


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _json(body: bytes, media_type: str) -> Any:
    """The JSON value of the body. None where it is none and does not say so either."""
    try:
        return load_json(body, limits=_LIMITS)
    except (Malformed, TooLarge) as error:
        if "json" not in media_type:
            return None
        raise VerifyError(f"the body cannot be read: {error.message}") from None


def _text(event: dict[str, Any], name: str) -> str:
    value = event.get(name, "")
    if not isinstance(value, str) or len(value) > 2048:
        raise VerifyError(f"{name} of the CloudEvent is no text of at most 2048 characters")
    return value
