"""A target: an endpoint record in namespace `system` that says how the propagation engine delivers to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from universal_registry.kernel.errors import AddressRefused, Invalid
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.lanes.lane import Order
from universal_registry.propagation.messages import nats_message
from universal_registry.propagation.messages.formats import Format, Shape, check_shape
from universal_registry.propagation.routing.target_traffic import AtFault, Revisions, Traffic
from universal_registry.registry.record import Record
from universal_registry.registry.words import shell_word, shown
from universal_registry.security.addresses import Policy, check_url, is_clear, is_nats, transport_for
from universal_registry.security.signing import parse_secret
from universal_registry.security.wire import parse_wire_key

KIND = "endpoint"
VALIDATED_AT, VALIDATED_URL = "validated_at", "validated_url"
"""The annotations of a target whose receiver answered a challenge: when, and the digest of the URL it stood at."""
_MOST_IN_FLIGHT = 10_000
_LONGEST_TIMEOUT = 3600.0
_HIGHEST_RATE = 100_000.0
_OF_ONE_SCHEME = ("nats", "websocket")
_SHAPED = ("format", "format_version", "template", "content_type")
_CONTENT_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}(; *[\w-]+=[\w.-]+){0,4}", re.ASCII)
Word = TypeVar("Word", bound=StrEnum)


class Signing(StrEnum):
    """How requests are signed: with the shared secret (v1), with the registry's own Ed25519 key (v1a), or with both."""

    HMAC = "hmac"
    ED25519 = "ed25519"
    BOTH = "both"


class Seal(StrEnum):
    """Whether bodies are sealed. AUTO: where they would travel in clear beyond this machine, or hold secrets."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What one lane delivers to. `url` None: declared, without an address yet. `timeout`: seconds for one attempt.

    `credential`: as whom a NATS server knows us, `user:password` or a token. `secret` is the signing
    secret in clear (`whsec_...`; None: no v1 signature), `seal_key` the sealing key (`sealkey_...`), and of each
    the one before, with the moment when its overlap ends. Neither these nor the URL appear
    in the repr. `in_flight` and `timeout` None: the settings decide. `fault`: why its record cannot be used as it
    stands, or empty. `updated_at`: of its record. `validated_at`: when its receiver answered a challenge at this URL.
    """

    namespace: str
    name: str
    uid: str
    revision: int
    created_revision: int
    transport: str
    url: str | None
    secret: str | None
    network: Policy
    format: str
    in_flight: int | None
    timeout: float | None
    paused: bool
    insecure_http: bool
    fault: str = ""
    updated_at: str = ""
    signing: Signing = Signing.HMAC
    previous_secret: str | None = None
    previous_secret_until: datetime | None = None
    seal: Seal = Seal.AUTO
    seal_key: str | None = None
    previous_seal_key: str | None = None
    previous_seal_key_until: datetime | None = None
    format_version: int = 1
    template: str = ""
    content_type: str = ""
    validated_at: str = ""
    traffic: Traffic = Traffic()
    credential: str | None = None

    @property
    def shape(self) -> Shape:
        """How events are written for it."""
        return Shape(Format(self.format), self.format_version, self.template, self.content_type)

    @property
    def in_clear(self) -> bool:
        """Whether its URL is http or nats beyond this machine: whoever is on the way reads what is not sealed."""
        return is_clear(self.url) and self.network is not Policy.LOOPBACK

    def secrets_at(self, now: datetime) -> tuple[str, ...]:
        """The secrets that sign now, the newest first: while a secret is rotated, the one before, too."""
        if self.secret is None or self.signing is Signing.ED25519:
            return ()
        overlap = self.previous_secret_until is not None and now < self.previous_secret_until
        return (self.secret, self.previous_secret) if overlap and self.previous_secret else (self.secret,)

    def seal_key_at(self, now: datetime) -> str | None:
        """The key that seals now: until the overlap ends the one before, so that receivers can be given the new one."""
        overlap = self.previous_seal_key_until is not None and now < self.previous_seal_key_until
        return self.previous_seal_key if overlap and self.previous_seal_key else self.seal_key

    def seals(self, *, with_secrets: bool) -> bool:
        """Whether a body is sealed for it, the settings allowing."""
        if self.seal_key is None or self.seal is Seal.NEVER:
            return False
        return self.seal is Seal.ALWAYS or with_secrets or self.in_clear

    @property
    def address(self) -> str:
        """`namespace/name`, as routes and audiences name it."""
        return f"{self.namespace}/{self.name}"

    @property
    def held(self) -> str:
        """Why its record alone allows no delivery now; empty when it does."""
        if self.fault:
            return self.fault
        if self.url is None:
            return f"no address: ureg target add {shell_word(self.name)} URL"
        return "paused" if self.paused else ""

    def __repr__(self) -> str:
        return f"Target({self.address!r}, revision={self.revision})"  # a URL's path may be a secret, too


def parse_target(record: Record, spec_in_clear: dict[str, Any]) -> Target | None:
    """The target that the record describes; None when it is none (another kind or namespace, or no `spec.delivery`).

    `spec_in_clear`: its spec with the secrets revealed. Never raises for what the spec says: a value that cannot be
    used becomes the target's `fault`, so that one bad record holds one lane and nothing else.
    """
    delivery = spec_in_clear.get("delivery")
    if record.kind != KIND or record.namespace != SYSTEM_NAMESPACE or not isinstance(delivery, dict):
        return None
    read = _read(record.name, spec_in_clear.get("url"), delivery)
    return Target(
        namespace=record.namespace,
        name=record.name,
        uid=record.uid,
        revision=record.revision,
        created_revision=record.created_revision,
        updated_at=record.updated_at,
        validated_at=_validated_at(record, read["url"]),
        **read,
    )


def check_delivery(name: str, url: str | None, delivery: dict[str, Any]) -> None:
    """Raises Invalid, naming the field, for a `spec.delivery` (in clear) that would hold the target as a fault."""
    fault = _read(name, url, delivery)["fault"]
    if fault:
        raise Invalid(f"target {name}: {fault}", path="spec.delivery")


def _read(name: str, url: object, delivery: dict[str, Any]) -> dict[str, Any]:
    """What `spec.url` and `spec.delivery` say, by the fields of Target."""
    reader = _Reader(delivery)
    insecure_http = reader.flag("insecure_http")
    shape = reader.shape()
    read = {
        "traffic": reader.traffic(),
        "transport": reader.transport(url),
        "url": reader.url(url, insecure_http),
        "credential": reader.credential(url),
        "secret": reader.secret("secret", parse_secret),
        "network": reader.word("network", Policy.PUBLIC),
        "format": shape.format.value,
        "format_version": shape.version,
        "template": shape.template,
        "content_type": shape.content_type,
        "in_flight": reader.whole("in_flight"),
        "timeout": reader.seconds("timeout"),
        "paused": reader.flag("paused"),
        "insecure_http": insecure_http,
        "signing": reader.word("signing", Signing.HMAC),
        "previous_secret": reader.secret("previous_secret", parse_secret),
        "previous_secret_until": reader.moment("previous_secret_until"),
        "seal": reader.seal(name),
        "seal_key": reader.secret("seal_key", parse_wire_key),
        "previous_seal_key": reader.secret("previous_seal_key", parse_wire_key),
        "previous_seal_key_until": reader.moment("previous_seal_key_until"),
    }
    return {**read, "fault": reader.fault}


def url_digest(url: str) -> str:
    """What stands for a URL where the URL itself, which may be a secret, must not."""
    return sha256(url.encode(errors="surrogatepass")).hexdigest()[:16]


def check_content_type(text: str) -> None:
    """Raises Invalid for what cannot stand in a header."""
    if text and not _CONTENT_TYPE.fullmatch(text):
        raise Invalid(f"content_type {shown(text)} is no media type", hint="such as text/plain; charset=utf-8")


def _validated_at(record: Record, url: str | None) -> str:
    """When the receiver answered the challenge; nothing when the target has moved since."""
    notes = record.annotations
    same = url is not None and notes.get(VALIDATED_URL) == url_digest(url)
    return notes.get(VALIDATED_AT, "") if same else ""


class _Reader:
    """Reads `spec.delivery`, keeping the first fault instead of raising."""

    def __init__(self, delivery: dict[str, Any]) -> None:
        self._delivery = delivery
        self.fault = ""

    def _bad(self, field: str, value: object, wanted: str) -> None:
        self.fault = self.fault or f"spec.delivery.{field} is {shown(value)}, not {wanted}"

    def text(self, field: str, default: str | None) -> str | None:
        value = self._delivery.get(field, default)
        if value is None or isinstance(value, str):
            return value
        self._bad(field, "no text" if any(word in field for word in ("secret", "key", "credential")) else value, "text")
        return default

    def transport(self, url: object) -> str:
        transport = self.text("transport", "webhook") or "webhook"
        if isinstance(url, str) and url:
            wanted = transport_for(url)
            if transport != wanted and not {transport, wanted}.isdisjoint(_OF_ONE_SCHEME):
                self._bad("transport", transport, f"{wanted}, which its URL is for")
        return transport

    def credential(self, url: object) -> str | None:
        """As whom NATS knows us; never shown to whoever is on the way."""
        credential = self.text("credential", None)
        if credential and is_clear(url if isinstance(url, str) else "") and self._delivery.get("network") != "loopback":
            self.fault = self.fault or "spec.delivery.credential would travel in clear: use tls:// instead of nats://"
        return credential or None

    def url(self, value: object, insecure_http: bool) -> str | None:
        if not isinstance(value, str) or not value:
            return None
        try:
            parts = check_url(value, insecure_http=insecure_http)
            if is_nats(value):
                nats_message.check_prefix(parts.target)
        except (Invalid, AddressRefused) as error:
            self.fault = self.fault or f"spec.url: {error}"
        return value

    def secret(self, field: str, parse: Callable[[str], bytes]) -> str | None:
        """A secret, if there is one that its reader takes."""
        text = self.text(field, None)
        if text is None:
            return None
        try:
            parse(text)
        except Invalid as error:
            self.fault = self.fault or f"spec.delivery.{field}: {error.message}"
            return None
        return text

    def word(self, field: str, default: Word) -> Word:
        if field not in self._delivery:
            return default
        value, words = self._delivery[field], type(default)
        try:
            return words(value)
        except ValueError:
            self._bad(field, value, " or ".join(words))
            return default

    def seal(self, name: str) -> Seal:
        seal = self.word("seal", Seal.AUTO)
        if seal is Seal.ALWAYS and self._delivery.get("seal_key") is None:
            command = f"ureg target key rotate {shell_word(name)}"
            self.fault = self.fault or f"spec.delivery.seal is always, and there is no seal_key: {command}"
        return seal

    def moment(self, field: str) -> datetime | None:
        text = self.text(field, None)
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self._bad(field, text, "a time with zone, as 2030-01-31T12:00:00Z")
            return None
        return moment.astimezone(UTC)

    def shape(self) -> Shape:
        if self._delivery.keys().isdisjoint(_SHAPED):
            return Shape()
        version = self.whole("format_version")
        shape = Shape(
            self.word("format", Format.CLOUDEVENTS),
            1 if version is None else version,
            self.text("template", "") or "",
            self.text("content_type", "") or "",
        )
        try:
            check_shape(shape)
            check_content_type(shape.content_type)
        except Invalid as error:
            self.fault = self.fault or f"spec.delivery: {error}"
        return shape

    def traffic(self) -> Traffic:
        return Traffic(
            order=self.word("order", Order.PER_KEY),
            revisions=self.word("delivery", Revisions.EVERY),
            rejected=self.word("rejected", AtFault.DEAD),
            rate=self.number("rate", f"deliveries a second, at most {_HIGHEST_RATE:.0f}", _HIGHEST_RATE),
            weight=self.whole("weight") or 1,
        )

    def flag(self, field: str) -> bool:
        value = self._delivery.get(field, False)
        if not isinstance(value, bool):
            self._bad(field, value, "true or false")
        return value is True

    def whole(self, field: str) -> int | None:
        value = self._delivery.get(field)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_IN_FLIGHT:
            return value
        self._bad(field, value, f"a number from 1 to {_MOST_IN_FLIGHT}")
        return None

    def seconds(self, field: str) -> float | None:
        return self.number(field, f"seconds, at most {_LONGEST_TIMEOUT:.0f}", _LONGEST_TIMEOUT)

    def number(self, field: str, wanted: str, most: float) -> float | None:
        value = self._delivery.get(field)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most:
            return float(value)
        self._bad(field, value, wanted)
        return None
