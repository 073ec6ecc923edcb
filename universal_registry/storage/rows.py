"""Between rows and what they hold: records and changes, the same on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec
import orjson

from universal_registry.log.change import Change, Op
from universal_registry.registry.record import Record
from universal_registry.registry.watch import Passage
from universal_registry.registry.words import ENVELOPE

_JSON_COLUMNS = ("labels", "annotations", "spec", "managers", "health")
_JSON_AT = tuple(ENVELOPE.index(name) for name in _JSON_COLUMNS)
_ENVELOPE_OF = attrgetter(*ENVELOPE)
_EMPTY = "{}"
_loads = orjson.loads
_BEFORE = 17
"""Where, after the columns of a line, its record's body before it stands."""
_OPS = {str(op): op for op in Op}
_STRINGS = msgspec.json.Decoder(tuple[str, ...])


def record_of(kind: str, row: Sequence[Any]) -> Record:
    """A record from the envelope columns of its kind's table, in the order of ENVELOPE."""
    # By name and without a loop, since it is made for every record that is read.
    (
        uid, namespace, name, classification, title, description, labels, annotations, spec, managers, generation,
        revision, created_revision, created_at, updated_at, created_by, updated_by, lifecycle, health, expires_at,
        fingerprint,
    ) = row  # fmt: skip
    if title is None or description is None or labels is None or annotations is None or managers is None:
        return _record_with_gaps(kind, row)  # no column of ours: they are never null
    return Record(
        classification=classification, title=title, description=description,
        labels={} if labels == _EMPTY else _loads(labels),
        annotations={} if annotations == _EMPTY else _loads(annotations),
        spec=_loads(spec), lifecycle=lifecycle, health=None if health is None else _loads(health),
        expires_at=expires_at, kind=kind, namespace=namespace, name=name, uid=uid, generation=generation,
        revision=revision, created_revision=created_revision, created_at=created_at, updated_at=updated_at,
        created_by=created_by, updated_by=updated_by,
        managers={} if managers == _EMPTY else _loads(managers), fingerprint=fingerprint,
    )  # fmt: skip


def _record_with_gaps(kind: str, row: Sequence[Any]) -> Record:
    """What somebody else wrote into the table, with defaults for what he left out."""
    given = {name: value for name, value in zip(ENVELOPE, row, strict=True) if value is not None}
    return Record(kind=kind, **given | {name: _loads(given[name]) for name in _JSON_COLUMNS if name in given})


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


def passage_of(row: tuple[Any, ...]) -> Passage:
    """A line and what was before it, from the columns of the query `passages`."""
    before = row[_BEFORE]
    return Passage(change_of(row), None if before is None else before.encode())


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
