"""Group commit: what arrived during the last fsync goes into the next one. The same for every engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from universal_registry.kernel.errors import Conflict, RegistryError, ShuttingDown
from universal_registry.kernel.ids import Key
from universal_registry.log.chain import leaf, link
from universal_registry.log.change import Change
from universal_registry.log.cursor import Head
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.decide import decide, touched_keys
from universal_registry.registry.operation import Committed, Decision, Request
from universal_registry.registry.record import Record

MOST_OPERATIONS = 256


class Batch(Protocol):
    """An open transaction of the store, its head locked."""

    head: Head

    async def heads(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        """The current records of the keys; None where there is none."""
        ...

    async def write(self, changes: Sequence[Change], records: Mapping[Key, Record | None]) -> None:
        """Append the lines, and make the records what they are now (None: remove)."""
        ...


class BatchStore(Protocol):
    """A store that can be written in batches."""

    def batch(self) -> AbstractAsyncContextManager[Batch]:
        """A transaction: durable when the block ends, or nothing of it is."""
        ...


class _Waiting:
    """A request and the future of its answer."""

    __slots__ = ("answer", "request")

    def __init__(self, request: Request, answer: asyncio.Future[Committed]) -> None:
        self.request = request
        self.answer = answer


class GroupWriter:
    """The one writer of a store. It owns one task, from the first request until `close`."""

    def __init__(self, store: BatchStore, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._listeners: list[Callable[[], None]] = []

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit that made a revision. A wake-up: it carries nothing."""
        self._listeners.append(listener)

    async def submit(self, request: Request) -> Committed:
        """Decide and commit. Returns after the fsync; if the caller is cancelled, the request may still be done."""
        if self._closing:
            raise ShuttingDown("the registry is stopping", hint="repeat the request when it is back")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._queue.append(waiting)
        self._arrived.set()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="registry-writer")
        return await waiting.answer

    async def close(self) -> None:
        """Finish what was submitted, then stop."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._commit_some(self._take())

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        operations = 0
        while self._queue and operations < MOST_OPERATIONS:
            taken.append(self._queue.popleft())
            operations += len(taken[-1].request.operations)
        return taken

    async def _commit_some(self, group: list[_Waiting]) -> None:
        """Commit a group; if the database refuses it, each half alone, so that a bad request costs only its caller."""
        answers: list[Committed | RegistryError]
        try:
            answers = await self._commit([waiting.request for waiting in group])
        except Conflict as error:
            if len(group) > 1:
                half = len(group) // 2
                await self._commit_some(group[:half])
                await self._commit_some(group[half:])
                return
            answers = [error]
        except RegistryError as error:
            answers = [error] * len(group)
        except Exception as error:  # noqa: BLE001 - a bug must reach every caller, and must not end the writer
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, answer in zip(group, answers, strict=True):
            _answer(waiting.answer, answer)

    async def _commit(self, requests: Sequence[Request]) -> list[Committed | RegistryError]:
        async with self._store.batch() as batch:
            before = batch.head
            heads = await batch.heads({key for request in requests for key in touched_keys(request)})
            folded = fold(before, heads, requests, self._catalogue)
            if folded.changes:
                await batch.write(folded.changes, folded.records)
        if folded.changes:
            for listener in self._listeners:
                listener()
        return folded.answers


class Folded(msgspec.Struct, frozen=True):
    """What a group of requests comes to: an answer for each, the lines in order, and the final state of each record."""

    answers: list[Committed | RegistryError]
    changes: list[Change]
    records: dict[Key, Record | None]


def fold(head: Head, heads: dict[Key, Record | None], requests: Sequence[Request], catalogue: Catalogue) -> Folded:
    """Decide one request after the other, each seeing what those before it made; refusals change nothing. Pure."""
    answers: list[Committed | RegistryError] = []
    changes: list[Change] = []
    records: dict[Key, Record | None] = {}
    for request in requests:
        try:
            decision = decide(heads, request, head.revision + 1, catalogue)
        except RegistryError as error:
            answers.append(error)
            continue
        if decision.changes:
            chained = link(head.hash, map(leaf, decision.changes))
            changes.extend(msgspec.structs.replace(change, hash=chained) for change in decision.changes)
            head = Head(head.incarnation, head.revision + 1, chained)
            made = _made(decision)
            heads.update(made)
            records.update(made)
        answers.append(Committed(revision=head.revision, cursor=head.cursor, results=decision.results))
    return Folded(answers, changes, records)


def _made(decision: Decision) -> dict[Key, Record | None]:
    results = {result.key: result for result in decision.results}
    return {
        change.key: None if change.op == "delete" else results[change.key].record
        for change in decision.changes
        if change.op != "event"
    }


def _answer(future: asyncio.Future[Committed], answer: Committed | RegistryError) -> None:
    if future.done():  # the caller went away
        return
    if isinstance(answer, RegistryError):
        future.set_exception(answer)
    else:
        future.set_result(answer)
