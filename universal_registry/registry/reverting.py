"""Going back: the operations that make records again what they were. Nothing is ever taken out of the log."""

from __future__ import annotations

from typing import Any

from universal_registry.kernel.errors import Conflict, CursorGone, NotFound, UsageError
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change, Op
from universal_registry.registry.drafts import Document
from universal_registry.registry.history import record_at
from universal_registry.registry.ports import LogReader, RecordReader
from universal_registry.registry.record import Record, document


async def rollback(records: RecordReader, log: LogReader, key: Key, to: int) -> list[Document]:
    """The operation that makes a record what it was at revision `to`, secrets included, also if it was deleted since.

    Raises NotFound when it was not there then, CursorGone when nobody knows any more.
    """
    then, now = await record_at(log, key, to), await records.get(key)
    return [_put(then, at=now.revision if now else 0)]


async def undelete(records: RecordReader, log: LogReader, key: Key) -> list[Document]:
    """The operation that brings a deleted record back as it last was. Raises Conflict when it is there, NotFound."""
    if (there := await records.get(key)) is not None:
        raise Conflict(f"{key} is there, at revision {there.revision}", hint="ureg rollback makes it what it was")
    lines = await log.history(key, 1, events=False)
    if not lines or lines[0].op is not Op.DELETE:
        raise NotFound(f"there never was a {key.kind} {key.name!r} in namespace {key.namespace}")
    return [_put(await record_at(log, key, lines[0].revision - 1), at=0)]


async def undo(records: RecordReader, log: LogReader, revision: int) -> list[Document]:
    """The operations that undo all of one revision. Raises NotFound, CursorGone, or Conflict when a record of it was
    changed since: that change is not undone by the way."""
    lines = [line for line in await _lines(log, revision) if line.op is not Op.EVENT]
    if not lines:
        raise UsageError(f"revision {revision} changed no record", hint="what was sent cannot be called back")
    later: list[str] = []
    made: list[Document] = []
    for line in lines:
        now = await records.get(line.key)
        deleted = line.op is Op.DELETE
        newest = await log.history(line.key, 1, events=False)
        if newest[0].revision != revision or (now is None) is not deleted:
            later.append(f"{line.key} in revision {newest[0].revision}")
            continue
        made.append(await _inverse(log, line, now.revision if now else 0))
    if later:
        shown = ", ".join(later[:5]) + (f" and {len(later) - 5} more" if len(later) > 5 else "")
        raise Conflict(
            f"changed since revision {revision}: {shown}", hint="undo that first, or use ureg rollback for one record"
        )
    return made


async def _lines(log: LogReader, revision: int) -> list[Change]:
    head = (await log.head()).revision
    if not 1 <= revision <= head:
        raise NotFound(f"there is no revision {revision}", hint=f"the newest is {head}")
    lines = list(await log.changes(revision - 1, 1, upto=revision))
    if revision <= (await log.horizon()).lines:  # now: what has gone while it was read is noticed
        raise CursorGone(f"what revision {revision} changed is not kept any more")
    return lines


async def _inverse(log: LogReader, line: Change, at: int) -> Document:
    if line.op is Op.PUT and line.prev_commitment is None:
        return {"op": "delete", **line.key._asdict(), "meta": {"revision": at}}
    return _put(await record_at(log, line.key, line.revision - 1), at=at)


def _put(record: Record, *, at: int) -> Document:
    """The record as it is stored: sealed secrets are its own, so they may go back to where they were."""
    shown: dict[str, Any] = document(record, meta=False)
    return {"op": "put", **shown, "meta": {"revision": at}}
