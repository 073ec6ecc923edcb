"""The past of one record, from its lines of the log."""

from __future__ import annotations

from universal_registry.kernel.errors import NotFound, UsageError
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Op
from universal_registry.registry.ports import LogReader
from universal_registry.registry.record import Record, decode_record


async def record_at(log: LogReader, key: Key, revision: int) -> Record:
    """The record as it was at a revision, whatever became of it since. Raises NotFound saying why there is none."""
    head = (await log.head()).revision
    if revision > head:
        raise UsageError(f"there is no revision {revision} yet", hint=f"the newest is {head}")
    lines = await log.history(key, 1, before=revision + 1, events=False)
    what = f"{key.kind} {key.name!r} in namespace {key.namespace}"
    if not lines:
        raise NotFound(f"there was no {what} at revision {revision}", hint="it did not exist then", head=head)
    line = lines[0]
    if line.op is Op.DELETE:
        raise NotFound(
            f"there was no {what} at revision {revision}", hint=f"it was deleted in revision {line.revision}", head=head
        )
    if line.body is None:
        raise NotFound(f"what {what} was at revision {revision} is not kept any more", head=head)
    return decode_record(line.body)
