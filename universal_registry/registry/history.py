"""The past of one record, from its lines of the log."""

from __future__ import annotations

from datetime import datetime

from universal_registry.kernel.errors import CursorGone, NotFound
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Op
from universal_registry.log.cursor import Head
from universal_registry.log.horizon import Horizon
from universal_registry.registry.ports import LogReader
from universal_registry.registry.record import Record, decode_record


async def record_at(log: LogReader, key: Key, revision: int) -> Record:
    """The record as it was at a revision, whatever became of it since. Raises NotFound saying why there is none,
    CursorGone where nobody knows any more."""
    head = await log.head()
    if revision > head.revision:
        raise NotFound(f"there is no revision {revision}", hint=f"the newest is {head.revision}", head=head.revision)
    lines = await log.history(key, 1, before=revision + 1, events=False)
    horizon = await log.horizon()
    what = f"{key.kind} {key.name!r} in namespace {key.namespace}"
    if not lines and revision < horizon.lines:
        raise _forgotten(what, revision, horizon, head)
    if not lines:
        raise NotFound(f"there was no {what} at revision {revision}", hint="it did not exist then", head=head.revision)
    line = lines[0]
    if line.op is Op.DELETE:
        raise NotFound(
            f"there was no {what} at revision {revision}",
            hint=f"it was deleted in revision {line.revision}",
            head=head.revision,
        )
    if line.body is None:
        raise _forgotten(what, revision, horizon, head)
    return decode_record(line.body)


def _forgotten(what: str, revision: int, horizon: Horizon, head: Head) -> CursorGone:
    return CursorGone(
        f"what {what} was at revision {revision} is not kept any more",
        hint=f"values are kept from revision {horizon.values} on",
        cursor=str(head.cursor),
        head=head.revision,
    )


async def newest_before(log: LogReader, moment: datetime) -> int:
    """The newest revision written before a moment, of those whose lines are all there: at least that of the horizon."""
    low, high = (await log.horizon()).lines, (await log.head()).revision
    while low < high:
        middle = (low + high + 1) // 2
        line = await log.line(middle, 0)
        if line is None:  # it was dropped meanwhile
            low = max(middle, (await log.horizon()).lines)
        elif datetime.fromisoformat(line.at) < moment:
            low = middle
        else:
            high = middle - 1
    return low
