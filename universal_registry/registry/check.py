"""Does a store agree with itself? The chain over the log, each body with its commitment, each record with its line.

Reads only, through the ports, so that it is the same for every engine, also while a daemon goes on writing: everything
is compared as of one revision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from universal_registry.kernel.errors import Corrupt, RegistryError
from universal_registry.log.chain import verify
from universal_registry.log.change import Change, Op
from universal_registry.log.horizon import Horizon
from universal_registry.registry.ports import LogReader, Page, RecordReader
from universal_registry.registry.record import Record, content_of, decode_record, fingerprint
from universal_registry.security.cipher import commitment_view

_LINES = 1000
_RECORDS = 500
EventCommitment = Callable[[Change], str]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found to agree: the log up to `revision`, and all records at that revision. `since`: the chain was
    followed from there on; what is left of older lines was compared with what they commit to."""

    revision: int
    since: int
    lines: int
    records: int


async def check_registry(
    records: RecordReader,
    log: LogReader,
    event_commitment: EventCommitment,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Checked:
    """Check everything. Raises Corrupt naming the first thing that does not fit, the log before the records.

    `event_commitment`: what an event's line must be committed to, from its payload.
    """
    pages = records.pages(None, size=_RECORDS)
    try:
        first = await anext(pages)
        horizon = await log.horizon()
        kept = await _check_kept(log, horizon, event_commitment)
        lines, living = await _check_log(log, horizon, first.revision, event_commitment, progress)
        count = await _check_page(log, first, first.revision)
        async for page in pages:
            count += await _check_page(log, page, first.revision)
            progress(f"{count} records")
    finally:
        await pages.aclose()
    if count != living:
        # Each record has its line, so that some line that should have left a record has none.
        raise Corrupt(f"there are {count} records, and by the log there must be {living}", records=count, log=living)
    return Checked(revision=first.revision, since=horizon.lines, lines=kept + lines, records=count)


async def _check_kept(log: LogReader, horizon: Horizon, event_commitment: EventCommitment) -> int:
    """The number of lines that are left behind the horizon. They follow no chain any more."""
    revision, count = 0, 0
    while revision < horizon.lines and (lines := await log.changes(revision, _LINES, upto=horizon.lines)):
        for line in lines:
            _check_body(line, event_commitment)
        revision, count = lines[-1].revision, count + len(lines)
    return count


async def _check_log(
    log: LogReader,
    horizon: Horizon,
    upto: int,
    event_commitment: EventCommitment,
    progress: Callable[[str], None],
) -> tuple[int, int]:
    """The number of lines behind which the log is whole, and of the records that are there after them."""
    revision, chained, count, living = horizon.lines, horizon.hash, 0, horizon.living
    while revision < upto:
        lines = await log.changes(revision, _LINES, upto=upto)
        if not lines:
            raise Corrupt(f"the log ends at revision {revision}, before the newest, {upto}", revision=revision)
        chained = verify(chained, lines, revision + 1)
        for line in lines:
            _check_body(line, event_commitment)
        living += _born_less_gone(lines)
        revision, count = lines[-1].revision, count + len(lines)
        progress(f"{count} lines of the log")
    return count, living


def _born_less_gone(lines: Sequence[Change]) -> int:
    born = sum(line.op is Op.PUT and line.prev_commitment is None for line in lines)
    return born - sum(line.op is Op.DELETE for line in lines)


def _check_body(line: Change, event_commitment: EventCommitment) -> None:
    if line.body is None:
        return
    where = f"line {line.revision}.{line.seq} ({line.op} {line.key})"
    try:
        if line.op is Op.EVENT:
            made = event_commitment(line)
        else:
            record = decode_record(line.body)
            made = fingerprint(content_of(record))
            if (record.key, record.uid) != (line.key, line.uid):
                raise Corrupt(f"the body of {where} is that of another record", revision=line.revision)
    except (msgspec.DecodeError, KeyError, ValueError):
        raise Corrupt(f"the body of {where} cannot be read", revision=line.revision) from None
    except RegistryError as error:
        raise Corrupt(f"{where}: {error.message}", revision=line.revision) from None
    if made != line.commitment:
        raise Corrupt(f"the body of {where} was altered: it is not what its line commits to", revision=line.revision)


async def _check_page(log: LogReader, page: Page, revision: int) -> int:
    for record in page.records:
        await _check_record(log, record, revision)
    return len(page.records)


async def _check_record(log: LogReader, record: Record, revision: int) -> None:
    lines = await log.history(record.key, 1, before=revision + 1, events=False)
    where = f"record {record.key}"
    if not lines:
        raise Corrupt(f"{where} stands in no line of the log", key=str(record.key))
    line = lines[0]
    if line.op is Op.DELETE:
        raise Corrupt(f"{where} is there, but was deleted in revision {line.revision}", key=str(record.key))
    if line.body is not None and _committed(decode_record(line.body)) != _committed(record):
        raise Corrupt(f"{where} is not what its newest line says, {line.revision}.{line.seq}", key=str(record.key))


def _committed(record: Record) -> Record:
    """The record without ciphertext: a rotation seals the same secret in the record and in its line, each anew."""
    return msgspec.structs.replace(record, spec=commitment_view(record.spec))
