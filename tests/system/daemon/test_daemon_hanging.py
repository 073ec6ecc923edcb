"""Over real sockets: targets that never answer beside a hundred that do, and a herd after an outage."""

from __future__ import annotations

import asyncio
import re
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

HEALTHY, ROUNDS = 100, 7
PATIENCE = 60.0
_OK = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"
_MARK = re.compile(rb"mark:(\d+)")
Start = Callable[..., Any]


class Receivers:
    """Many targets behind one port, by their paths, on a loop of its own thread. Those in `hanging` are not answered.

    `came`: (path, mark) -> when it came first; `most_in_second`: how many came within one, of all.
    """

    def __init__(self, port: int = 0) -> None:
        self.hanging: set[str] = set()
        self.came: dict[tuple[str, int], float] = {}
        self.open: Counter[str] = Counter()
        self.most_open = self.most_in_second = 0
        self._second: deque[float] = deque()
        self._wanted: Callable[[], bool] = bool
        self._there = threading.Event()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self.port = port
        self.server: asyncio.Server
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()
        assert listening.wait(PATIENCE)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self.server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", self.port))
        self.port = self.server.sockets[0].getsockname()[1]
        listening.set()
        self._loop.run_forever()
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.findall(rb"(?i)content-length: *(\d+)", head)[0])
                body = await reader.readexactly(length)
                name = head.split(b" ", 2)[1].decode().lstrip("/")
                self._note(name, body)
                if name in self.hanging:
                    await reader.read()  # until the near side has had enough
                    break
                writer.write(_OK)
                self.open[name] -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the near side has gone, or the test is over
        finally:
            writer.close()

    def _note(self, name: str, body: bytes) -> None:
        now = time.monotonic()
        with self._lock:
            self.open[name] += 1
            self.most_open = max(self.most_open, self.open[name])
            self._second.append(now)
            while self._second[0] <= now - 1.0:
                self._second.popleft()
            self.most_in_second = max(self.most_in_second, len(self._second))
            if found := _MARK.search(body):
                self.came.setdefault((name, int(found[1])), now)
            if self._wanted():
                self._there.set()

    def wait_for(self, wanted: Callable[[], bool]) -> None:
        """Until that is so of what came."""
        with self._lock:
            self._wanted = wanted
            self._there.clear()
            if wanted():
                return
        assert self._there.wait(PATIENCE), f"{len(self.came)} came, and that was not all"

    def times(self, mark: int) -> list[float]:
        """When it came to each of the healthy ones."""
        return [at for (name, each), at in self.came.items() if each == mark and name.startswith("well")]

    def close(self) -> None:
        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.server.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    opened = Receivers()
    yield opened
    opened.close()


def add(daemon: Any, receivers: Receivers, name: str, **more: Any) -> None:
    asked = {"name": name, "url": receivers.url(name), "network": "loopback", "select": "kind=alias", **more}
    daemon.client().request("POST", "/v1/-/targets", json=asked)


def put(daemon: Any, mark: int) -> float:
    began = time.monotonic()
    daemon.client().request("PUT", "/v1/default/aliases/it", json={"spec": {"command": f"mark:{mark}"}})
    return began


def rounds(daemon: Any, receivers: Receivers, first: int) -> float:
    """A change to all, again and again: how long the slowest but one of the hundred takes, in the median of rounds."""
    slowest = []
    for mark in range(first, first + ROUNDS):
        began = put(daemon, mark)
        receivers.wait_for(lambda mark=mark: len(receivers.times(mark)) >= HEALTHY)
        slowest.append(sorted(receivers.times(mark))[-2] - began)
    return statistics.median(slowest)


@pytest.mark.parametrize("hanging", [1, 10, 50])
def test_targets_that_hang_from_the_start_do_not_slow_those_that_answer(
    start: Start, receivers: Receivers, hanging: int
) -> None:
    daemon = start().ready()
    for number in range(HEALTHY):
        add(daemon, receivers, f"well{number}")
    rounds(daemon, receivers, 1)
    alone = rounds(daemon, receivers, 100)
    receivers.hanging = {f"sick{number}" for number in range(hanging)}
    for name in receivers.hanging:
        add(daemon, receivers, name)
    beside = rounds(daemon, receivers, 200)
    slots = sum(receivers.open[name] for name in receivers.hanging)
    assert 0 < slots <= 4, "what never answered holds a part of the ten slots"
    assert beside <= 2 * alone + 0.05, (alone, beside)


def test_targets_that_answered_and_all_hang_at_once_are_known_after_their_first_timeout(
    start: Start, receivers: Receivers
) -> None:
    daemon = start().ready()
    sick = {f"sick{number}" for number in range(20)}
    for name in [*sick, *(f"well{number}" for number in range(HEALTHY))]:
        add(daemon, receivers, name, **({"timeout": 1.0} if name in sick else {}))
    rounds(daemon, receivers, 1)
    alone = rounds(daemon, receivers, 100)
    receivers.hanging = sick
    put(daemon, 200)
    receivers.wait_for(lambda: len(receivers.times(200)) == HEALTHY)
    beside = rounds(daemon, receivers, 300)
    assert beside <= 2 * alone + 0.2, (alone, beside)


def test_a_herd_comes_within_the_limits_and_nothing_is_given_up(start: Start) -> None:
    """A thousand wait for one target that was away; it is back, and says how much it takes."""
    count, rate, in_flight = 1000, 400, 4
    away = Receivers()
    port = away.port
    away.close()
    daemon = start(REGISTRY_MAX_IN_FLIGHT_PER_TARGET="4").ready()
    client = daemon.client()
    asked = {"name": "well", "url": f"http://127.0.0.1:{port}/well", "network": "loopback", "select": "kind=alias"}
    client.request("POST", "/v1/-/targets", json={**asked, "rate": rate, "in_flight": in_flight})
    documents = [
        {"op": "put", "kind": "alias", "name": f"a{number}", "spec": {"command": f"mark:{number}"}}
        for number in range(count)
    ]
    for first in range(0, count, 200):
        client.request("POST", "/v1/batch", json={"operations": documents[first : first + 200]})
    daemon.await_event("breaker opened")
    back = Receivers(port)
    try:
        client.request("POST", "/v1/-/targets/system/well/lane", json={"action": "reset"})
        back.wait_for(lambda: len(back.came) == count)
        assert back.most_open <= in_flight
        assert back.most_in_second <= rate * 1.05, "begun at the rate; some take longer to arrive than others"
    finally:
        back.close()
    assert client.request("GET", "/v1/-/targets/system/well").json()["lane"]["dead"] == 0
