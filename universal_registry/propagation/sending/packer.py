"""The pipeline of an attempt, and the only place that knows the order of its steps: render, write, seal, sign. Pure.

What is signed is exactly what is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from universal_registry import __version__
from universal_registry.kernel.errors import Refused
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.log.change import Change, Op
from universal_registry.propagation.messages import nats_message
from universal_registry.propagation.messages.cloudevent import Event, payload_event, state_event
from universal_registry.propagation.messages.formats import Body, Shape
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.routing.target import Signing, Target
from universal_registry.registry.record import Record
from universal_registry.security.addresses import check_url
from universal_registry.security.ed25519 import SigningKey
from universal_registry.security.signing import ID_HEADER, TIMESTAMP_HEADER, parse_secret, signed_headers
from universal_registry.security.wire import SEALED_TYPE, parse_wire_key, seal_for_wire

_MOST_SECRETS = 1 << 14
_AGENT = ("user-agent", f"universal-registry/{__version__}")


def event_of(
    change: Change,
    incarnation: str,
    record: Record | None = None,
    clear_spec: dict[str, Any] | None = None,
    payload: Any = None,
) -> Event:
    """The event of a line. `formats.write_event` writes it; the same for each target of the same shape."""
    if change.op is Op.EVENT:
        return payload_event(change, incarnation, payload)
    return state_event(change, incarnation, record, clear_spec)


class Packer:
    """Makes the request of one attempt, as the settings say. `signing_key`: asked where v1a signatures are wanted."""

    def __init__(self, world: World, signing_key: Callable[[], SigningKey], settings: Settings) -> None:
        self._world = world
        self._signing_key = signing_key
        self._parsed: dict[str, bytes] = {}
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._sealing = settings.encryption.seal_wire
        self._timeout = settings.retry.timeout_seconds

    def may_hold_secrets(self, target: Target) -> bool:
        """Whether a body for the target may show secrets: they leave only sealed."""
        return self._sealing and target.seals(with_secrets=True)

    def seals(self, target: Target, *, with_secrets: bool) -> bool:
        """Whether a body for the target leaves sealed."""
        return self._sealing and target.seals(with_secrets=with_secrets)

    def shape(self, target: Target, *, with_secrets: bool = False) -> Shape:
        """How events are written for the target. What is sealed is sealed whole, with the attributes in it."""
        binary = target.transport == nats_message.TRANSPORT and not self.seals(target, with_secrets=with_secrets)
        return target.shape._replace(binary=binary) if binary else target.shape

    def pack(self, delivery_id: str, body: Body, target: Target, *, with_secrets: bool = False) -> Envelope:
        """The request that carries the body to the target, sealed and signed now, under the id of the delivery.

        `with_secrets`: the body shows secrets. Raises Refused for a target that cannot be sent to as it stands.
        """
        if target.fault or target.url is None:
            raise Refused(f"target {target.name!r} cannot be sent to: {target.held}")
        if with_secrets and not self.may_hold_secrets(target):
            raise Refused(f"secrets leave only sealed, and {target.name!r} does not seal")
        now = self._world.now()
        if self.seals(target, with_secrets=with_secrets):
            key = parse_wire_key(target.seal_key_at(now) or "")
            body = Body(seal_for_wire(key, body.content, body.content_type, self._world), SEALED_TYPE)
        headers = self._signed(delivery_id, int(now.timestamp()), body.content, target, target.secrets_at(now))
        envelope = Envelope(
            url=target.url,
            headers=(("content-type", body.content_type), _AGENT, *headers.items()),
            body=body.content,
            network=target.network,
            timeout=target.timeout or self._timeout,
            insecure_http=target.insecure_http,
        )
        if target.transport == nats_message.TRANSPORT:
            return _as_message(envelope, delivery_id, body, target)
        return envelope

    def _signed(
        self, delivery_id: str, stamp: int, content: bytes, target: Target, secrets: tuple[str, ...]
    ) -> dict[str, str]:
        key = self._signing_key() if target.signing is not Signing.HMAC else None
        if not secrets and key is None:
            return {ID_HEADER: delivery_id, TIMESTAMP_HEADER: str(stamp)}
        return signed_headers([self._bytes_of(each) for each in secrets], delivery_id, stamp, content, key)

    def _bytes_of(self, secret: str) -> bytes:
        """Parsed once; raises Invalid for one that is none, each time."""
        found = self._parsed.get(secret)
        if found is None:
            if len(self._parsed) >= _MOST_SECRETS:
                self._parsed.clear()
            found = self._parsed[secret] = parse_secret(secret)
        return found


def _as_message(envelope: Envelope, delivery_id: str, body: Body, target: Target) -> Envelope:
    """The request as a message of NATS. A sealed body has no attributes: they are in it."""
    prefix = nats_message.check_prefix(check_url(envelope.url, insecure_http=True).target)
    own = nats_message.headers_of(delivery_id, body.attributes)
    subject = nats_message.subject_of(prefix, dict(body.attributes).get("subject", ""))
    return replace(envelope, subject=subject, credential=target.credential, headers=(*own, *envelope.headers))
