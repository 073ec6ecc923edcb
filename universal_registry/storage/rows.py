"""Between rows and what they hold: records and changes, the same on every engine."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from universal_registry.log.change import Change, Op
from universal_registry.registry.record import Record
from universal_registry.registry.words import ENVELOPE

_JSON_COLUMNS = frozenset({"labels", "annotations", "spec", "managers", "health"})
_DECODERS = tuple((name, name in _JSON_COLUMNS) for name in ENVELOPE)
_OPS = {str(op): op for op in Op}
_STRINGS = msgspec.json.Decoder(tuple[str, ...])


def record_of(kind: str, row: tuple[Any, ...]) -> Record:
    """A record from the envelope columns of its kind's table, in the order of ENVELOPE."""
    values = {
        name: orjson.loads(value) if is_json else value
        for (name, is_json), value in zip(_DECODERS, row, strict=True)
        if value is not None
    }
    return Record(kind=kind, **values)


def row_of(record: Record) -> tuple[Any, ...]:
    """The envelope columns of a record, in the order of ENVELOPE."""
    return tuple(
        _text(value) if is_json and value is not None else value
        for (name, is_json), value in ((each, getattr(record, each[0])) for each in _DECODERS)
    )


def change_of(row: tuple[Any, ...]) -> Change:
    """A line from the columns of the queries on `changes`."""
    return Change(
        revision=row[0],
        seq=row[1],
        op=_OPS[row[2]],
        kind=row[3],
        namespace=row[4],
        name=row[5],
        uid=row[6],
        generation=row[7],
        commitment=row[8],
        prev_commitment=row[9],
        changed_fields=_STRINGS.decode(row[10]),
        actor=row[11],
        txn_id=row[12],
        message=row[13],
        at=row[14],
        hash=bytes(row[15]),
        body=None if row[16] is None else row[16].encode(),
    )


def row_of_change(change: Change, position: int) -> tuple[Any, ...]:
    """The columns of `append`."""
    return (
        position,
        change.revision,
        change.seq,
        change.op,
        change.kind,
        change.namespace,
        change.name,
        change.uid,
        change.generation,
        change.commitment,
        change.prev_commitment,
        _text(change.changed_fields),
        change.actor,
        change.txn_id,
        change.message,
        change.at,
        change.hash,
        None if change.body is None else change.body.decode(),
    )


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
