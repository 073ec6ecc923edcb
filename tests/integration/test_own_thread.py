"""The thread of a store: what is handed over is done in order, and told to whoever still waits."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from universal_registry.storage.own_thread import OwnThread
from universal_registry.storage.threads import to_the_end

LONG = 20.0


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What threads raised that nobody caught."""
    found: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(repr(args.exc_value)))
    return found


async def test_what_it_returns_or_raises_comes_back(raised: list[str]) -> None:
    own = OwnThread("own")
    assert [await own.run(lambda at=at: (at, threading.current_thread().name)) for at in range(3)] == [
        (0, "own"), (1, "own"), (2, "own"),
    ]  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        await own.run(lambda: 1 // 0)
    with pytest.raises(SystemExit):  # which ends no thread
        await own.run(lambda: exec("raise SystemExit"))
    assert await own.run(lambda: "goes on") == "goes on"
    own.close()
    assert await own.run(lambda: "begins anew") == "begins anew"
    own.close()
    assert raised == []


async def test_the_loop_goes_on_while_it_works() -> None:
    own, may_end = OwnThread("own"), threading.Event()
    answer = own.run(lambda: may_end.wait(LONG))
    await asyncio.to_thread(lambda: None)
    assert not answer.done()
    may_end.set()
    assert await answer
    own.close()


async def test_it_has_begun_before_the_loop_goes_on() -> None:
    own, begun, may_end = OwnThread("own"), threading.Event(), threading.Event()
    await own.run(lambda: None)

    def work() -> None:
        begun.set()
        may_end.wait(LONG)

    seen = 0
    for _ in range(50):
        answer = own.run(work)
        seen += begun.is_set()
        may_end.set()
        await answer
        begun.clear()
        may_end.clear()
    assert seen > 0  # an executor: never, since nothing gives its thread the interpreter
    own.close()


async def test_who_is_cancelled_waits_for_its_end() -> None:
    own, may_end = OwnThread("own"), threading.Event()
    waiting = asyncio.ensure_future(to_the_end(own.run(lambda: may_end.wait(LONG))))
    await asyncio.to_thread(lambda: None)
    waiting.cancel()
    await asyncio.to_thread(lambda: None)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await own.run(lambda: "free again") == "free again"
    own.close()


def test_a_loop_that_ends_meanwhile_is_told_nothing(raised: list[str]) -> None:
    own, may_end, threads = OwnThread("own"), threading.Event(), []

    async def leave() -> None:
        own.run(lambda: (threads.append(threading.current_thread()), may_end.wait(LONG)))
        await asyncio.to_thread(lambda: None)

    asyncio.run(leave())
    may_end.set()
    own.close()
    assert [each.is_alive() for each in threads] == [False]
    assert raised == []


def test_one_that_is_forgotten_leaves_no_thread() -> None:
    own = OwnThread("own")

    async def work(by: OwnThread) -> threading.Thread:
        return await by.run(lambda: (threading.current_thread(), by)[0])

    thread = asyncio.run(work(own))
    assert thread.is_alive()
    del own
    gc.collect()
    thread.join(LONG)
    assert not thread.is_alive()
