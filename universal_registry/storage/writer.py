"""Group commit: what arrived during the last fsync goes into the next one. The same for every engine.

A group is decided in its own transaction, or, where the store can tell what it holds without being waited for, ahead:
while the group before it is being committed. Then its transaction only asks whether that still holds. So that there is
something to decide meanwhile, a group is half of all that is under way, unless that is little.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from universal_registry.kernel.errors import Conflict, RegistryError, ShuttingDown, StoreLocked
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change
from universal_registry.log.cursor import Head
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.decide import touched_keys
from universal_registry.registry.fold import Folding, Name
from universal_registry.registry.newest import Newest
from universal_registry.registry.once import Kept
from universal_registry.registry.operation import Committed, Request
from universal_registry.registry.record import Record

if TYPE_CHECKING:
    from universal_registry.storage.sync_rows import SyncTables

T = TypeVar("T")
MOST_OPERATIONS = 256
WORTH_AN_FSYNC = 32
"""A group takes at least so many if they are there: for fewer, a second fsync costs more than is won by deciding during
the first."""


class Outlook(Protocol):
    """What a store holds, told at once, from the beginning of a batch on. It may or may not show that batch, and is
    true as long as nobody else writes: the next batch knows (`Batch.confirms`)."""

    def records(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        """As `Batch.heads`. Raises StorageUnavailable, Corrupt."""
        ...

    def kept(self, name: Name) -> Kept | None:
        """What was answered to a request that bore the key. Raises as `records`."""
        ...


class Batch(Protocol):
    """An open transaction of the store, its head locked."""

    head: Head

    async def heads(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        """The current records of the keys; None where there is none."""
        ...

    async def kept(self, names: Sequence[Name]) -> dict[Name, Kept]:
        """What was answered to requests that bore a key, by (actor, key); asked only when some bear one."""
        ...

    async def write(
        self, changes: Sequence[Change], records: Mapping[Key, Record | None], kept: Sequence[Kept] = ()
    ) -> None:
        """Append the lines, and make the records what they are now (None: remove). Keep the answers, each in place of
        an older one of its (actor, key), and forget some that are out of date: about as many as may come."""
        ...

    def outlook(self) -> Outlook | None:
        """None where the store can tell nothing without being waited for."""
        ...

    def confirms(self, outlook: Outlook, /) -> bool:
        """Whether nothing was written since the outlook's batch began, but by that batch."""
        ...

    synced: bool
    """False: this registry has never had peers, and no record has versions."""

    def sync_tables(self) -> SyncTables:
        """Where versions are kept, in this transaction."""
        ...


class Versions(Protocol):
    """Who gives records versions, for peers."""

    async def note(self, batch: Batch, changes: Sequence[Change], /) -> None:
        """These lines were written in the batch, by people: nothing else of it will be."""
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


class _Work:
    """What is to be done in a transaction of its own, and the future of what it returns."""

    __slots__ = ("answer", "do")

    def __init__(self, do: Callable[[Batch], Awaitable[Any]], answer: asyncio.Future[Any]) -> None:
        self.do = do
        self.answer = answer


class _Ahead:
    """The next group, decided on top of one that is not committed yet. Nothing of it holds unless that one succeeds."""

    def __init__(self, outlook: Outlook, before: Folding, catalogue: Catalogue) -> None:
        self.outlook = outlook
        self.head = before.head
        self.folding = Folding(before.head, catalogue, dict(before.records), dict(before.kept))
        self.requests = 0
        self.operations = 0

    def add(self, requests: Sequence[Request]) -> None:
        """Decide some more. Raises what the outlook does."""
        heads = self.folding.heads
        unknown = {key for request in requests for key in touched_keys(request)} - heads.keys()
        if unknown:
            heads.update(self.outlook.records(unknown))
        for request in requests:
            self._find_kept(request)
            self.folding.add(request)
        self.requests += len(requests)
        self.operations += _operations(requests)

    def _find_kept(self, request: Request) -> None:
        once = request.once
        if once is not None and (name := (once.actor, once.key)) not in self.folding.known:
            found = self.outlook.kept(name)
            if found is not None:
                self.folding.known[name] = found

    def holds(self, batch: Batch, requests: Sequence[Request]) -> bool:
        """Whether it is what deciding those requests in the batch would come to."""
        return len(requests) == self.requests and batch.head == self.head and batch.confirms(self.outlook)


class GroupWriter:
    """The one writer of a store. It owns one task, from the first request until `close`."""

    def __init__(self, store: BatchStore, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue
        self._queue: deque[_Waiting] = deque()
        self._ahead: _Ahead | None = None
        """What its first requests come to, if that could be told."""
        self._deciding = False
        self._most = MOST_OPERATIONS
        """How many operations the next group takes."""
        self._before = 0
        """How many the group before this one had: those writers are likely to be back soon."""
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._listeners: list[Callable[[], None]] = []
        self.newest = Newest()
        self._works: deque[_Work] = deque()
        self._versions: Versions | None = None

    def keep_versions(self, versions: Versions) -> None:
        """Tell `versions` of the lines of each batch, before it is committed."""
        self._versions = versions

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit that made a revision. A wake-up: it carries nothing."""
        self._listeners.append(listener)

    def wake(self) -> None:
        """Call all of them: another process has committed, or may have. One that raises keeps nobody else from being
        called, and ends no commit: the loop reports it."""
        _call(self._listeners)

    async def submit(self, request: Request) -> Committed:
        """Decide and commit. Returns after the fsync; if the caller is cancelled, the request may still be done."""
        if self._closing:
            raise ShuttingDown("the registry is stopping", hint="repeat the request when it is back")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future())
        self._queue.append(waiting)
        if self._ahead is not None and not self._deciding:
            self._deciding = True
            loop.call_soon(self._decide_ahead)  # with what else arrives in this turn of the loop: at once is dearer
        self._arrived.set()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="registry-writer")
        return await waiting.answer

    async def within(self, work: Callable[[Batch], Awaitable[T]]) -> T:
        """Run the work in a transaction of its own; what it returns, after the fsync. It is done even if the caller is
        cancelled. Whatever it raises is raised here, and nothing of it is done."""
        if self._closing:
            raise ShuttingDown("the registry is stopping", hint="repeat the request when it is back")
        loop = asyncio.get_running_loop()
        waiting = _Work(work, loop.create_future())
        self._works.append(waiting)
        self._arrived.set()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="registry-writer")
        result: T = await waiting.answer
        return result

    async def drain(self) -> None:
        """Returns when everything that was submitted before has been committed or refused."""
        await self.submit(Request(operations=(), actor="", txn_id="", at="", message=""))

    async def close(self) -> None:
        """Finish what was submitted, then stop."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._queue or self._works or not self._closing:
            if self._works:
                await self._work_alone(self._works.popleft())
            elif not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            if not self._queue:
                continue
            self._decide_ahead()
            ahead, self._ahead = self._ahead, None
            group = [self._queue.popleft() for _ in self._first(self._most)]
            self._most = MOST_OPERATIONS
            await self._commit_some(group, ahead)

    async def _work_alone(self, work: _Work) -> None:
        self._ahead = None  # it was built on what is there before
        try:
            async with self._store.batch() as batch:
                result = await work.do(batch)
        except Exception as error:  # noqa: BLE001 - the caller's, whatever it is; the writer goes on
            if not work.answer.done():
                work.answer.set_exception(error)
            return
        if not work.answer.done():
            work.answer.set_result(result)
        self.wake()

    def _first(self, operations: int, after: int = 0) -> list[Request]:
        """The first requests of the queue with so many operations, the last of them perhaps with more."""
        found: list[Request] = []
        for waiting in islice(self._queue, after, None):
            if operations <= 0:
                break
            found.append(waiting.request)
            operations -= len(waiting.request.operations)
        return found

    def _decide_ahead(self) -> None:
        """Decide those of the queue that will be the next group, as far as they have come."""
        self._deciding = False
        ahead = self._ahead
        if ahead is None:
            return
        requests = self._first(self._most - ahead.operations, ahead.requests)
        try:
            ahead.add(requests)
        except Exception:  # noqa: BLE001 - the group is decided in its transaction then, and whatever it was shows there
            self._ahead = None

    async def _commit_some(self, group: list[_Waiting], ahead: _Ahead | None = None) -> None:
        """Commit a group; if the database refuses it, each half alone, so that a bad request costs only its caller."""
        answers: Sequence[Committed | RegistryError]
        try:
            answers = await self._commit([waiting.request for waiting in group], ahead)
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
        self.newest.forget()

    async def _commit(self, requests: Sequence[Request], ahead: _Ahead | None) -> Sequence[Committed | RegistryError]:
        try:
            async with self._store.batch() as batch:
                if ahead is not None and ahead.holds(batch, requests):
                    folding = ahead.folding
                else:
                    folding = await self._fold(batch, requests)
                self._look_ahead(batch, folding, requests)
                if folding.changes or folding.kept:
                    await batch.write(folding.changes, folding.records, list(folding.kept.values()))
                    if self._versions is not None and folding.changes:
                        await self._versions.note(batch, folding.changes)
                if self.newest.is_wanted:
                    self.newest.begin(folding)
                    asyncio.get_running_loop().call_soon(_call, self.newest.listeners)  # as above
        except BaseException:
            self._ahead = None  # it was built on this
            self.newest.forget()
            raise
        self.newest.end()
        return folding.answers

    async def _fold(self, batch: Batch, requests: Sequence[Request]) -> Folding:
        heads = await batch.heads({key for request in requests for key in touched_keys(request)})
        names = [(request.once.actor, request.once.key) for request in requests if request.once is not None]
        folding = Folding(batch.head, self._catalogue, heads, await batch.kept(names) if names else {})
        for request in requests:
            folding.add(request)
        return folding

    def _look_ahead(self, batch: Batch, folding: Folding, requests: Sequence[Request]) -> None:
        outlook = batch.outlook()
        if outlook is not None:
            here = _operations(requests)
            half = (here + self._before + _operations(self._first(MOST_OPERATIONS))) // 2
            self._most, self._before = min(max(half, WORTH_AN_FSYNC), MOST_OPERATIONS), here
            self._ahead, self._deciding = _Ahead(outlook, folding, self._catalogue), True
            asyncio.get_running_loop().call_soon(self._decide_ahead)  # not now: the COMMIT must be under way


def _call(listeners: Iterable[Callable[[], None]]) -> None:
    for listener in listeners:
        try:
            listener()
        except Exception as error:  # noqa: BLE001 - a listener's bug, which must not end the writer
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "a listener of commits failed", "exception": error})


def _operations(requests: Iterable[Request]) -> int:
    return sum(len(request.operations) for request in requests)


def _answer(future: asyncio.Future[Committed], answer: Committed | RegistryError) -> None:
    if future.done():  # the caller went away
        return
    if isinstance(answer, RegistryError):
        future.set_exception(answer)
    else:
        future.set_result(answer)
