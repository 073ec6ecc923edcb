"""What a delivery says: a CloudEvents 1.0 event, made from a line of the log. Pure; `formats` writes it down."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from universal_registry.kernel.errors import Corrupt
from universal_registry.log.change import Change, Op
from universal_registry.registry.record import Record, decode_record, document

Event = dict[str, Any]
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


def state_event(
    change: Change, incarnation: str, record: Record | None = None, clear_spec: dict[str, Any] | None = None
) -> Event:
    """The event of a put or a deletion: the record as of that line (of a deletion: as it last was).

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


def payload_event(change: Change, incarnation: str, payload: Any) -> Event:
    """A one-shot event: the payload as it was given, any JSON value."""
    return _event(change, incarnation, payload)


def target_event(incarnation: str, target: str, what: str, event_id: str, at: str, data: dict[str, Any]) -> Event:
    """What is sent to a target for its own sake (`test`, `challenge`); it stands in no log. `at`: RFC 3339 UTC."""
    return {
        "specversion": "1.0",
        "id": f"{incarnation}.{what}.{event_id}",
        "source": f"/registries/{incarnation}",
        "type": f"registry.target.{what}.v1",
        "subject": f"endpoint/{target}",
        "time": at,
        "datacontenttype": "application/json",
        "data": {"target": target, **data},
    }


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


def _event(change: Change, incarnation: str, data: Any) -> Event:
    return {
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
