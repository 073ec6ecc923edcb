"""What clients say on a stream: JSON messages, each a subscription or a request that HTTP has too. Pure.

A push is the same request as its twin over HTTP, so that the same rules hold for it: `pushed` makes that request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from universal_registry.api.http import Request, split_target
from universal_registry.client.http import encode_query, quote, record_path
from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import DEFAULT_NAMESPACE
from universal_registry.kernel.limits import DEFAULT_LIMITS
from universal_registry.kernel.loader import load_json

LONGEST_ID = 128
Id = str | int


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    id: Id = ""


class Subscribe(_Message, frozen=True, kw_only=True, tag="subscribe"):
    """Watch, as `GET /v1/-/watch` does; the frames bear this `id`. A second `id` is a second subscription."""

    select: list[str] | str = []
    start: str = msgspec.field(name="from", default="")
    policy: str = ""
    max_lag: int | None = None
    consumer: str = ""

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """The same as a query."""
        terms = [self.select] if isinstance(self.select, str) else self.select
        said = {"from": self.start, "policy": self.policy, "consumer": self.consumer}
        lag = () if self.max_lag is None else (("max_lag", str(self.max_lag)),)
        return (*(("select", term) for term in terms if term), *((k, v) for k, v in said.items() if v), *lag)


class Unsubscribe(_Message, frozen=True, kw_only=True, tag="unsubscribe"):
    """End the subscription of that `id`."""


class Bookmark(_Message, frozen=True, kw_only=True, tag="bookmark"):
    """Ask where the subscription of that `id` stands."""


class Ack(_Message, frozen=True, kw_only=True, tag="ack"):
    """A named consumer has dealt with everything up to `cursor`."""

    consumer: str
    cursor: str


class _Write(_Message, frozen=True, kw_only=True):
    message: str = ""
    idempotency_key: str = ""


class _One(_Write, frozen=True, kw_only=True):
    if_match: int | str | None = None
    create: bool = False
    """Only if there is none yet."""


class Put(_One, frozen=True, kw_only=True, tag="put"):
    """Make a record exactly this document, which names itself: `kind`, `name`, perhaps `namespace`."""

    record: dict[str, Any]
    strict: bool = False


class Patch(_One, frozen=True, kw_only=True, tag="patch"):
    """Merge the document into the record that it names (RFC 7386)."""

    record: dict[str, Any]
    strict: bool = False


class Delete(_One, frozen=True, kw_only=True, tag="delete"):
    """Remove a record."""

    kind: str
    name: str
    namespace: str = DEFAULT_NAMESPACE
    missing_ok: bool = False


class Batch(_Write, frozen=True, kw_only=True, tag="batch"):
    """Many operations, one revision, as `POST /v1/batch`."""

    operations: list[dict[str, Any]]
    strict: bool = False


class Event(_Write, frozen=True, kw_only=True, tag="event"):
    """Send data, once: into the stream of that name, or from `source` to `targets`."""

    data: Any
    stream: str = ""
    source: str = ""
    targets: list[str] = []
    mode: str = ""


class Sync(_Message, frozen=True, kw_only=True, tag="sync"):
    """Acknowledge, push and pull, as `POST /v1/-/nexus/{studio}/sync`."""

    studio: str
    cursor: str = ""
    push: list[dict[str, Any]] = []
    wait: int = 0
    limit: int = 500
    full: bool = False


Push = Ack | Put | Patch | Delete | Batch | Event | Sync
Said = Subscribe | Unsubscribe | Bookmark | Push


def read_message(data: bytes) -> Said:
    """The message. Raises Malformed, TooLarge, Invalid."""
    value = load_json(data, limits=DEFAULT_LIMITS)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise Invalid("a message is a JSON object with a type", hint='such as {"type": "subscribe", "from": "now"}')
    try:
        said: Said = msgspec.convert(value, Said)
    except msgspec.ValidationError as error:
        raise Invalid(f"the message does not fit: {error}", hint="docs/how-to/streams.md lists them") from None
    if isinstance(said.id, str) and len(said.id) > LONGEST_ID:
        raise Invalid(f"the id is {len(said.id)} characters long", hint=f"at most {LONGEST_ID}")
    return said


def id_in(data: bytes) -> Id | None:
    """The id in a message that may be bad otherwise, so that its sender knows which it was."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    found = value.get("id") if isinstance(value, dict) else None
    if isinstance(found, str):
        return found if len(found) <= LONGEST_ID else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def pushed(said: Push, opened: Request) -> Request:
    """The request that the push stands for. `opened`: the one that opened the stream: who asks."""
    method, target, body = _asked(said)
    path, query = split_target(target)
    who = {name: opened.headers[name] for name in ("host", "authorization") if name in opened.headers}
    sent = who | _conditions(said)
    content = b"" if body is None else orjson.dumps(body)
    return Request(method=method, path=path, peer=opened.peer, query=query, headers=sent, body=content)


def _asked(said: Push) -> tuple[str, str, Any]:
    match said:
        case Ack():
            return "POST", f"/v1/-/consumers/{quote(said.consumer)}/ack?cursor={quote(said.cursor)}", None
        case Put():
            return "PUT", _record_target(said.record, message=said.message, strict=said.strict), said.record
        case Patch():
            return "PATCH", _record_target(said.record, message=said.message, strict=said.strict), said.record
        case Delete():
            key = {"kind": said.kind, "namespace": said.namespace, "name": said.name}
            return "DELETE", _record_target(key, message=said.message, missing_ok=said.missing_ok), None
        case Batch():
            body = {"operations": said.operations, "message": said.message, "strict": said.strict}
            return "POST", "/v1/batch", body
        case Sync():
            body = {"cursor": said.cursor, "push": said.push, "wait": said.wait, "limit": said.limit, "full": said.full}
            return "POST", f"/v1/-/nexus/{quote(said.studio)}/sync", body
        case Event(stream=str(stream)) if stream:
            return "POST", f"/v1/-/streams/{quote(stream)}", {"data": said.data, "message": said.message}
        case Event():
            body = {"source": said.source, "targets": said.targets, "data": said.data}
            return "POST", "/v1/-/propagate", body | ({"mode": said.mode} if said.mode else {})


def _record_target(document: Mapping[str, Any], **query: Any) -> str:
    words = [document.get("namespace", DEFAULT_NAMESPACE), document.get("kind"), document.get("name")]
    if not all(isinstance(word, str) and word for word in words):
        raise Invalid("the record does not say what it is", hint='it names itself: {"kind": ..., "name": ...}')
    path = record_path(*words)
    return f"{path}{'&' if '?' in path else '?'}{encode_query(query)}"


def _conditions(said: Push) -> dict[str, str]:
    found = {"content-type": "application/json"}
    if isinstance(said, _Write) and said.idempotency_key:
        found["idempotency-key"] = said.idempotency_key
    if isinstance(said, _One):
        if said.if_match is not None:
            found["if-match"] = f'"{said.if_match}"' if isinstance(said.if_match, int) else said.if_match
        if said.create:
            found["if-none-match"] = "*"
    return found
