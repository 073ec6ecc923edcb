"""A thread for what a store must wait for: the disk. Handed over and back by the shortest way."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")
_HANDED_OVER_SECONDS = 0.0005
"""A thread that has not begun by then is not waited for: the machine has other things to do."""


class Runs(Protocol):
    """Where work is done that the loop must not wait for."""

    def run(self, work: Callable[[], Result], /) -> asyncio.Future[Result]:
        """Begin it, behind what was begun before. What it returns or raises, on the running loop."""
        ...

    def close(self) -> None:
        """When what was begun is done."""
        ...


class _Job:
    """What the thread is to do, and to whom it tells. `begun` is free once it has begun."""

    __slots__ = ("answer", "begun", "loop", "work")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any]) -> None:
        self.work = work
        self.loop = loop
        self.answer = answer
        self.begun = threading.Lock()
        self.begun.acquire()


_Jobs = SimpleQueue[_Job | None]


class OwnThread:
    """Runs: one thread, started by the first work. An executor does it by a queue, two futures and three turns of the
    loop, a third of the time of a commit. And this one gives the thread the interpreter before the loop goes on: else
    the disk begins only when the loop has nothing to do any more, or after a switch interval."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: _Jobs = SimpleQueue()
        self._thread: threading.Thread | None = None
        weakref.finalize(self, self._jobs.put, None)  # who forgets to close it leaves no thread behind

    def run(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """As Runs."""
        if self._thread is None:
            self._thread = threading.Thread(target=_serve, args=(self._jobs,), name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        job = _Job(work, loop, answer)
        self._jobs.put(job)
        job.begun.acquire(timeout=_HANDED_OVER_SECONDS)
        return answer

    def close(self) -> None:
        """As Runs."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()


def _serve(jobs: _Jobs) -> None:
    while _do(jobs.get()):  # while there is none, nothing of the last is held
        pass


def _do(job: _Job | None) -> bool:
    if job is None:
        return False
    job.begun.release()
    try:
        tell: tuple[Callable[[Any], None], Any] = (job.answer.set_result, job.work())
    except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
        tell = (job.answer.set_exception, error)
    with suppress(RuntimeError):  # that loop has ended: nobody waits any more
        job.loop.call_soon_threadsafe(_tell, job.answer, *tell)
    return True


def _tell(answer: asyncio.Future[Any], say: Callable[[Any], None], what: Any) -> None:
    if not answer.done():
        say(what)


class ByExecutor:
    """Runs: as an executor does it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def run(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """As Runs."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """As Runs."""
        self._executor.shutdown()
