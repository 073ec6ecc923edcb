"""The body of a delivery: a CloudEvents 1.0 event in structured JSON form. Pure; rendered from a line of the log."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.log.change import Change, Op
from universal_registry.registry.record import Record, decode_record, document

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_KEPT = {"$secret": "kept"}


def verb(change: Change) -> str:
    """What happened, as event types say it: created, updated, deleted or event."""
    match change.op:
        case Op.PUT:
            return "created" if change.generation == 1 else "updated"
        case Op.DELETE:
            return "deleted"
        case Op.EVENT:
            return "event"


def render_state(
    change: Change, incarnation: str, record: Record | None = None, clear_spec: dict[str, Any] | None = None
) -> bytes:
    """The body for a put or a deletion: the record as of that line (of a deletion: as it last was).

    `record`: the line's body, decoded, where that is at hand. `clear_spec`: its spec with secrets revealed, only where
    the route includes them; without it each secret reads `{"$secret": "kept"}`.
    """
    record = record or _record_of(change)
    spec = redacted(record.spec) if clear_spec is None else clear_spec
    data = {
        "record": document(replace(record, spec=spec)),
        "changed": list(change.changed_fields),
        "revision": change.revision,
        "generation": change.generation,
        "actor": change.actor,
        "message": change.message,
    }
    return _event(change, incarnation, data)


def render_event(change: Change, incarnation: str, payload: Any) -> bytes:
    """The body for a one-shot event: the payload as it was given, any JSON value."""
    return _event(change, incarnation, payload)


def render_test(incarnation: str, target: str, test_id: str, at: str) -> bytes:
    """The body of the event that `target test` sends; it stands in no log. `at`: RFC 3339 UTC."""
    return canonical(
        {
            "specversion": "1.0",
            "id": f"{incarnation}.test.{test_id}",
            "source": f"/registries/{incarnation}",
            "type": "registry.target.test.v1",
            "subject": f"endpoint/{target}",
            "time": at,
            "datacontenttype": "application/json",
            "data": {"test": True, "target": target},
        }
    )


def redacted(value: Any) -> Any:
    """The value with each sealed secret as `{"$secret": "kept"}`. What holds none is shared, not copied."""
    if isinstance(value, dict):
        if "$sealed" in value:
            return dict(_KEPT)
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return value


def _record_of(change: Change) -> Record:
    if change.body is None:
        raise Corrupt(f"line {change.revision}.{change.seq} has no body any more", hint="it was compacted away")
    return decode_record(change.body)


def _event(change: Change, incarnation: str, data: Any) -> bytes:
    return canonical(
        {
            "specversion": "1.0",
            "id": f"{incarnation}.{change.revision}.{change.seq}",
            "source": f"/registries/{incarnation}",
            "type": f"registry.{change.kind}.{verb(change)}.v1",
            "subject": str(change.key),
            "time": change.at,
            "sequence": f"{change.revision:016d}.{change.seq:06d}",
            "datacontenttype": "application/json",
            "data": data,
        }
    )
