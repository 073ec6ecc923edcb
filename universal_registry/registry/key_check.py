"""Does everything that is sealed open, in its own place, with the keys that are here? Reads only, on any engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from universal_registry.kernel.errors import RegistryError
from universal_registry.log.change import Change, Op
from universal_registry.registry.answers import answer_context
from universal_registry.registry.record import Record, decode_record
from universal_registry.registry.service import RegistryService
from universal_registry.security.cipher import Sealer

_LINES, _RECORDS, _ANSWERS = 1000, 500, 500
_SEALED = re.compile(r"([0-9a-f]{8}):[A-Za-z0-9_-]+=*")
_IN_TEXT = re.compile(rb'"(?:\$sealed|payload)":"([0-9a-f]{8}):')
MOST_NAMED = 20


class SealedFacts(Protocol):
    """What is sealed beside records and log."""

    async def answers(self, after: tuple[str, str], limit: int) -> Sequence[tuple[str, str, str]]:
        """Kept answers (actor, key, sealed answer) in order, after one of them."""
        ...

    async def facts(self) -> Mapping[str, str]:
        """All facts about the store; only some are sealed."""
        ...


class Seals(msgspec.Struct, frozen=True, kw_only=True):
    """How many values opened, by the key that they are sealed with, and where one did not: the first MOST_NAMED."""

    opened: Mapping[str, int]
    wrong: int
    named: tuple[str, ...]


async def check_seals(
    service: RegistryService, sealer: Sealer, beside: SealedFacts, progress: Callable[[str], None] = lambda _: None
) -> Seals:
    """Open every sealed value of a store: of each record, of each line of the log, of kept answers and of facts."""
    check = _Check(service, sealer)
    await check.beside(beside)
    await check.records(progress)
    await check.log(progress)
    return Seals(opened=dict(check.opened), wrong=check.wrong, named=tuple(check.named))


class _Check:
    def __init__(self, service: RegistryService, sealer: Sealer) -> None:
        self._service = service
        self._sealer = sealer
        self.opened: Counter[str] = Counter()
        self.wrong = 0
        self.named: list[str] = []

    def _try(self, where: str, kids: Sequence[str], look: Callable[[], object]) -> None:
        try:
            look()
        except RegistryError as error:
            self.wrong += 1
            if len(self.named) < MOST_NAMED:
                self.named.append(f"{where}: {error.message}")
        else:
            self.opened.update(kids)

    async def beside(self, store: SealedFacts) -> None:
        for name, text in (await store.facts()).items():
            if _SEALED.fullmatch(text):
                self._try(f"fact {name}", [text[:8]], lambda text=text: self._sealer.check(text))  # type: ignore[misc]
        after = ("", "")
        while rows := await store.answers(after, _ANSWERS):
            for actor, key, answer in rows:
                context = answer_context(actor, key)
                where = f"the answer kept for {actor} under the idempotency key {key!r:.80}"
                self._try(where, [answer[:8]], lambda a=answer, c=context: self._sealer.open(a, c))  # type: ignore[misc]
            after = rows[-1][:2]

    async def records(self, progress: Callable[[str], None]) -> None:
        count = 0
        async for page in self._service.records.pages(None, size=_RECORDS):
            for record in page.records:
                self._record(f"record {record.key}", record, msgspec.json.encode(record.spec))
            count += len(page.records)
            progress(f"{count} records")

    def _record(self, where: str, record: Record, text: bytes) -> None:
        kids = [kid.decode() for kid in _IN_TEXT.findall(text)]
        kind = self._service.catalogue.kinds.get(record.kind)
        if kids and kind is not None:
            self._try(where, kids, lambda: self._sealer.seal_secrets(record.spec, kind.secret_paths, str(record.key)))

    async def log(self, progress: Callable[[str], None]) -> None:
        after, count = 0, 0
        while lines := await self._service.log.changes(after, _LINES):
            for line in lines:
                if line.body is not None:
                    self._line(line, line.body)
            after, count = lines[-1].revision, count + len(lines)
            progress(f"{count} lines of the log")

    def _line(self, line: Change, body: bytes) -> None:
        where = f"line {line.revision}.{line.seq} ({line.op} {line.key})"
        if line.op is Op.EVENT:
            kids = [kid.decode() for kid in _IN_TEXT.findall(body)]
            self._try(where, kids, lambda: self._service.open_event(line))
        elif _IN_TEXT.search(body):
            self._record(where, decode_record(body), body)
