"""Group commit: what arrived during the last fsync goes into the next one. The same for every engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from universal_registry.kernel.errors import Conflict, RegistryError, ShuttingDown, StoreLocked
from universal_registry.kernel.ids import Key
from universal_registry.log.chain import leaf, link
from universal_registry.log.change import Change
from universal_registry.log.cursor import Head
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.decide import decide, touched_keys
from universal_registry.registry.once import Kept, check_same, is_current
from universal_registry.registry.operation import Asked, Committed, Decision, Request
from universal_registry.registry.record import Record

MOST_OPERATIONS = 128


class Batch(Protocol):
    """An open transaction of the store, its head locked."""

    head: Head

    async def heads(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        """The current records of the keys; None where there is none."""
        ...

    async def kept(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Kept]:
        """What was answered to requests that bore a key, by (actor, key); asked only when some bear one."""
        ...

    async def write(
        self, changes: Sequence[Change], records: Mapping[Key, Record | None], kept: Sequence[Kept] = ()
    ) -> None:
        """Append the lines, and make the records what they are now (None: remove). Keep the answers, each in place of
        an older one of its (actor, key), and forget some that are out of date: about as many as may come."""
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

    def wake(self) -> None:
        """Call all of them: another process has committed, or may have."""
        for listener in self._listeners:
            listener()

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
            if len(group) > 1 and not isinstance(error, StoreLocked):  # that is no request's fault, and costs a wait
                half = len(group) // 2
                await self._commit_some(group[:half])
                await self._commit_some(group[half:])
                return
            answers = [error] * len(group)
        except RegistryError as error:
            answers = [error] * len(group)
        except Exception as error:  # noqa: BLE001 - a bug must reach every caller, and must not end the writer
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, answer in zip(group, answers, strict=True):
            _answer(waiting.answer, answer)
        self.wake()  # after the answers: what is committed is acknowledged, whatever a listener does

    async def _commit(self, requests: Sequence[Request]) -> list[Committed | RegistryError]:
        async with self._store.batch() as batch:
            before = batch.head
            heads = await batch.heads({key for request in requests for key in touched_keys(request)})
            names = [(request.once.actor, request.once.key) for request in requests if request.once is not None]
            kept = await batch.kept(names) if names else {}
            folded = fold(before, heads, requests, self._catalogue, kept)
            if folded.changes or folded.kept:
                await batch.write(folded.changes, folded.records, folded.kept)
        return folded.answers


class Folded(msgspec.Struct, frozen=True):
    """What a group of requests comes to: an answer for each, the lines in order, the final state of each record, and
    the answers to keep."""

    answers: list[Committed | RegistryError]
    changes: list[Change]
    records: dict[Key, Record | None]
    kept: list[Kept]


def fold(
    head: Head,
    heads: dict[Key, Record | None],
    requests: Sequence[Request],
    catalogue: Catalogue,
    kept: Mapping[tuple[str, str], Kept] | None = None,
) -> Folded:
    """Decide one request after the other, each seeing what those before it made; refusals change nothing. Pure.

    A request whose key is among `kept` is not decided: its answer is there. Only what was done is kept, not a refusal.
    """
    answers: list[Committed | RegistryError] = []
    changes: list[Change] = []
    records: dict[Key, Record | None] = {}
    known, fresh = dict(kept or {}), dict[tuple[str, str], Kept]()
    for request in requests:
        try:
            if (again := _again(request, known, head)) is not None:
                answers.append(again)
                continue
            decision = decide(heads, request, head.revision + 1, catalogue)
        except RegistryError as error:
            error.data.setdefault("head", head.revision)
            answers.append(error)
            continue
        if decision.changes:
            chained = link(head.hash, map(leaf, decision.changes))
            changes.extend(msgspec.structs.replace(change, hash=chained) for change in decision.changes)
            head = Head(head.incarnation, head.revision + 1, chained)
            made = _made(decision)
            heads.update(made)
            records.update(made)
        committed = Committed(revision=head.revision, cursor=head.cursor, results=decision.results)
        answers.append(committed)
        if request.once is not None:
            name = (request.once.actor, request.once.key)
            known[name] = fresh[name] = _to_keep(request.once, committed, request.at)
    return Folded(answers, changes, records, list(fresh.values()))


def _again(request: Request, kept: Mapping[tuple[str, str], Kept], head: Head) -> Committed | None:
    """The answer to a request that was done before. Raises Invalid when its key was used for another one."""
    once = request.once
    found = None if once is None else kept.get((once.actor, once.key))
    if once is None or found is None or not is_current(found, request.at):
        return None
    check_same(found, once.fingerprint)
    return Committed(revision=found.revision, cursor=head.cursor, results=(), kept=found)


def _to_keep(once: Asked, committed: Committed, at: str) -> Kept:
    return Kept(
        key=once.key,
        actor=once.actor,
        fingerprint=once.fingerprint,
        revision=committed.revision,
        at=at,
        answer=once.answer(committed),
    )


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
