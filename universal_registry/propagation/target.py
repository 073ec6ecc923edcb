"""A target: an endpoint record in namespace `system` that says how the propagation engine delivers to it."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.kernel.errors import AddressRefused, Invalid
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.registry.record import Record
from universal_registry.registry.words import shown
from universal_registry.security.addresses import Policy, check_url
from universal_registry.security.signing import parse_secret

KIND = "endpoint"
FORMATS = ("cloudevents",)
_MOST_IN_FLIGHT = 10_000
_LONGEST_TIMEOUT = 3600.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What one lane delivers to. `url` None: declared, without an address yet. `timeout`: seconds for one attempt.

    `secret` is the signing secret in clear (`whsec_...`; None: unsigned); neither it nor the URL appears in the repr.
    `in_flight` and `timeout` None: the settings decide. `fault`: why its record cannot be used as it stands, or empty.
    `updated_at`: of its record.
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
    reader = _Reader(delivery)
    insecure_http = reader.flag("insecure_http")
    return Target(
        namespace=record.namespace,
        name=record.name,
        uid=record.uid,
        revision=record.revision,
        created_revision=record.created_revision,
        transport=reader.text("transport", "webhook") or "webhook",
        url=reader.url(spec_in_clear.get("url"), insecure_http),
        secret=reader.signing(reader.text("secret", None)),
        network=reader.network(),
        format=reader.format(),
        in_flight=reader.whole("in_flight"),
        timeout=reader.seconds("timeout"),
        paused=reader.flag("paused"),
        insecure_http=insecure_http,
        fault=reader.fault,
        updated_at=record.updated_at,
    )


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
        self._bad(field, "no text" if field == "secret" else value, "text")
        return default

    def url(self, value: object, insecure_http: bool) -> str | None:
        if not isinstance(value, str) or not value:
            return None
        try:
            check_url(value, insecure_http=insecure_http)
        except (Invalid, AddressRefused) as error:
            self.fault = self.fault or f"spec.url: {error}"
        return value

    def signing(self, secret: str | None) -> str | None:
        if secret is None:
            return None
        try:
            parse_secret(secret)
        except Invalid as error:
            self.fault = self.fault or f"spec.delivery.secret: {error.message}"
            return None
        return secret

    def network(self) -> Policy:
        value = self._delivery.get("network", Policy.PUBLIC.value)
        if isinstance(value, str) and value in list(Policy):
            return Policy(value)
        self._bad("network", value, " or ".join(Policy))
        return Policy.PUBLIC

    def format(self) -> str:
        value = self._delivery.get("format", FORMATS[0])
        if value not in FORMATS:
            self._bad("format", value, "built yet; built: " + ", ".join(FORMATS))
        return str(value)

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
        value = self._delivery.get(field)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LONGEST_TIMEOUT:
            return float(value)
        self._bad(field, value, f"seconds, at most {_LONGEST_TIMEOUT:.0f}")
        return None


def shell_word(text: str) -> str:
    """The text as one word of a shell command, for commands that messages show."""
    plain = all(char.isalnum() or char in "@%+=:,./-_" for char in text) and text.isascii() and not text.startswith("-")
    return text if plain else "'" + text.replace("'", "'\"'\"'") + "'"
