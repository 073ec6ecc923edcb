"""Between rows and what they hold: records and changes, the same on every engine."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec
import orjson

from universal_registry.log.change import Change, Op
from universal_registry.registry.record import Record
from universal_registry.registry.words import ENVELOPE

_JSON_COLUMNS = ("labels", "annotations", "spec", "managers", "health")
_JSON_AT = tuple(ENVELOPE.index(name) for name in _JSON_COLUMNS)
_HEALTH, _EXPIRES_AT = ENVELOPE.index("health"), ENVELOPE.index("expires_at")
_ENVELOPE_OF = attrgetter(*ENVELOPE)
_EMPTY = "{}"
_OPS = {str(op): op for op in Op}
_STRINGS = msgspec.json.Decoder(tuple[str, ...])


def record_of(kind: str, row: tuple[Any, ...]) -> Record:
    """A record from the envelope columns of its kind's table, in the order of ENVELOPE."""
    row = tuple(row)  # as asyncpg gives it, it is none
    values = dict(zip(ENVELOPE, row, strict=True))
    for name in _JSON_COLUMNS:
        text = values[name]
        if text is not None:
            values[name] = {} if text == _EMPTY else orjson.loads(text)
    if row.count(None) > (row[_HEALTH] is None) + (row[_EXPIRES_AT] is None):  # a column that is never null in a record
        values = {name: value for name, value in values.items() if value is not None}
    return Record(kind=kind, **values)


def row_of(record: Record) -> tuple[Any, ...]:
    """The envelope columns of a record, in the order of ENVELOPE."""
    row = list(_ENVELOPE_OF(record))
    for at in _JSON_AT:
        if (value := row[at]) is not None:
            row[at] = _text(value) if value else _EMPTY
    return tuple(row)


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
