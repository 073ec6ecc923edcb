"""What a watcher is told of a revision: which of its lines, as what, with the value before. Pure.

A line is *seen* through a selector. Whether a record is selected may change with its value, so a line is judged by the
values after and before it: what was selected and is no longer is told as `left`, with the old value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec
import orjson

from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Cursor
from universal_registry.registry.record import Record, decode_record, document
from universal_registry.registry.selector import Selector


class Passage(NamedTuple):
    """A line of the log with what its record was before it: the body of the line before about the same record, when
    this one changed a record that was there. `before` is None also when compaction has dropped that body."""

    change: Change
    before: bytes | None


class Told(StrEnum):
    """As what a watcher is told of a line."""

    PUT = "put"
    DELETE = "delete"
    LEFT = "left"
    EVENT = "event"


class FrameKind(StrEnum):
    """`records`: a page of what is there now. `synced`: everything up to the cursor has been told; what follows is
    news. `changes`: all of a revision that is selected. `bookmark`: nothing selected up to the cursor. `gap`: what
    cannot be told any more. `end`: the last frame; go on from its cursor."""

    RECORDS = "records"
    SYNCED = "synced"
    CHANGES = "changes"
    BOOKMARK = "bookmark"
    GAP = "gap"
    END = "end"


class Showing(Protocol):
    """How records and events leave: secrets kept back, payloads opened."""

    def shown(self, record: Record) -> Record: ...

    def open_event(self, change: Change) -> Any: ...


class Sight:
    """A line with its values, each read from its bytes once, and only if somebody needs it."""

    __slots__ = ("_after", "_before", "_first", "_read", "change")

    def __init__(self, passage: Passage) -> None:
        self.change = passage.change
        self._first = passage.before
        self._read = False
        self._after: Record | None = None
        self._before: Record | None = None

    def _values(self) -> None:
        self._read = True
        change = self.change
        if change.op is Op.PUT:
            self._after = None if change.body is None else decode_record(change.body)
            self._before = None if self._first is None else decode_record(self._first)
        elif change.op is Op.DELETE:
            self._before = None if change.body is None else decode_record(change.body)

    @property
    def after(self) -> Record | None:
        """The record after the line; None: there is none, or compaction has dropped it."""
        if not self._read:
            self._values()
        return self._after

    @property
    def before(self) -> Record | None:
        """The record before the line; None: there was none, or compaction has dropped it."""
        if not self._read:
            self._values()
        return self._before

    @property
    def before_is_lost(self) -> bool:
        """There was a record before, but what it was has been compacted away."""
        return self.change.op is not Op.EVENT and self.change.prev_commitment is not None and self.before is None

    def since(self, first: Sight) -> Sight:
        """The same line, as if all between `first` (a line about the same record) and it had been one change."""
        merged = Sight(Passage(self.change, None))
        merged._read, merged._after = True, self.after
        merged._before = first.before
        return merged


def judged(selector: Selector, sight: Sight) -> Told | None:
    """As what a watcher with that selector is told of the line; None: not at all.

    A line whose own value has been compacted away is not told: a later line about the same record is.
    """
    change = sight.change
    if not selector.covers(change.key):
        return None
    if change.op is Op.EVENT:
        return Told.EVENT if selector.is_of_keys else None
    if change.op is Op.DELETE:
        # Of an unknown value nobody can say that it was not selected: rather one word too many than a lost record.
        return Told.DELETE if sight.before is None or selector.matches(sight.before) else None
    if sight.after is None:
        return None
    if selector.matches(sight.after):
        return Told.PUT
    was_selected = sight.before_is_lost or (sight.before is not None and selector.matches(sight.before))
    return Told.LEFT if was_selected else None


def event_document(told: Told, sight: Sight, showing: Showing) -> dict[str, Any]:
    """A line as it leaves. `record`: the value after (put); `previous`: the value before (put, delete, left).
    `compacted`: lines before this one about the record were dropped, so that `previous` is not known."""
    change = sight.change
    shown: dict[str, Any] = {
        "revision": change.revision,
        "seq": change.seq,
        "op": str(told),
        **change.key._asdict(),
        "uid": change.uid,
        "generation": change.generation,
        "at": change.at,
        "actor": change.actor,
        "changed": list(change.changed_fields),
    }
    if change.message:
        shown["message"] = change.message
    if told is Told.EVENT:
        if change.body is None:
            return shown | {"compacted": True}
        event = showing.open_event(change)
        return shown | {"session": event.session, "audience": list(event.audience), "payload": event.payload}
    if told is Told.PUT and sight.after is not None:
        shown["record"] = document(showing.shown(sight.after))
    if sight.before is not None:
        shown["previous"] = document(showing.shown(sight.before))
    elif sight.before_is_lost:
        shown["compacted"] = True
    return shown


class Frame(msgspec.Struct, frozen=True):
    """One message to a watcher. `data`: JSON without a line end, made once for all watchers that are told the same.
    `cursor`: having this frame, a reader has everything up to there (None: within a list, and when
    that broke off: begin it anew). `wires`: what a transport makes of `data`, kept by its name, so that it is made once
    too."""

    kind: FrameKind
    cursor: Cursor | None
    data: bytes
    events: int = 0
    wires: dict[str, bytes] = {}


def mark(kind: FrameKind, cursor: Cursor | None, **more: Any) -> Frame:
    """A frame that tells of a place (None: of none that one could go on from) and not of changes."""
    place = {} if cursor is None else {"cursor": str(cursor)}
    return Frame(kind, cursor, orjson.dumps({"type": str(kind), **place, **more}), 0, {})


def records_frame(records: Iterable[Record], showing: Showing) -> Frame:
    """A page of a list."""
    shown = [document(showing.shown(record)) for record in records]
    return Frame(FrameKind.RECORDS, None, orjson.dumps({"type": "records", "records": shown}), len(shown), {})


def changes_frame(cursor: Cursor, events: Sequence[dict[str, Any]], *, coalesced: bool = False) -> Frame:
    """All that is told of a revision. `coalesced`: of several, each record as it was after the last."""
    said: dict[str, Any] = {"type": "changes", "cursor": str(cursor), "revision": cursor.revision, "events": events}
    if coalesced:
        said["coalesced"] = True
    return Frame(FrameKind.CHANGES, cursor, orjson.dumps(said), len(events), {})


def newest_of_each(sights: Iterable[Sight]) -> list[Sight]:
    """Of lines in order: the newest about each record, with the value before the first; every event as it is."""
    firsts: dict[Key, Sight] = {}
    newest: dict[Any, Sight] = {}
    for sight in sights:
        change = sight.change
        if change.op is Op.EVENT:
            newest[change.revision, change.seq] = sight
            continue
        first = firsts.setdefault(change.key, sight)
        newest.pop(change.key, None)
        newest[change.key] = sight if first is sight else sight.since(first)
    return list(newest.values())
