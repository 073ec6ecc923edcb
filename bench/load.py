"""The load side, one process for ours and the peer alike: a closed loop of raw HTTP/1.1 connections on uvloop.

`python -m bench.load`, the plan as JSON on stdin, the outcome as JSON on stdout. Each connection has one request
outstanding. `{n}` in a request's text becomes a number of eight digits that is new each time, `{key}` one of `keys`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from bench.figures import percentile

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """`head` and `body`: the request as text. `first`: where the numbers begin."""

    host: str
    port: int
    connections: int
    seconds: float
    head: str
    body: str
    keys: list[str]
    first: int = 0
    warm: float = 0.3


class Outcome:
    """What the connections saw."""

    def __init__(self) -> None:
        self.took: list[tuple[float, float]] = []
        self.bad: list[str] = []


class Requests:
    """Requests that differ, at the price of a replace."""

    def __init__(self, plan: LoadPlan) -> None:
        self._head, self._body = plan.head.encode(), plan.body.encode()
        self._keys = [key.encode() for key in plan.keys]
        self._numbers = count(plan.first)

    def __next__(self) -> bytes:
        number = next(self._numbers)
        text, key = b"%08d" % number, self._keys[number % len(self._keys)]
        body = self._body.replace(b"{n}", text).replace(b"{key}", key)
        head = self._head.replace(b"{key}", key).replace(b"{length}", b"%d" % len(body))
        return head + b"\r\n\r\n" + body


class Connection(asyncio.Protocol):
    """One request after the other until it is told to stop."""

    def __init__(self, requests: Requests, outcome: Outcome) -> None:
        self._requests = requests
        self._outcome = outcome
        self._buffer = bytearray()
        self._began = 0.0
        self.going = True
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self.transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end])
        if _CHUNKED.search(head):
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return
        elif (found := _LENGTH.search(head)) is None or len(self._buffer) < end + 4 + int(found[1]):
            return
        now = time.perf_counter()
        self._outcome.took.append((now, now - self._began))
        if not head.startswith(b"HTTP/1.1 2"):
            self._outcome.bad.append(bytes(self._buffer[:400]).decode(errors="replace"))
        self._buffer.clear()
        if self.going:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.going:
            self._outcome.bad.append(f"connection lost: {exc}")


async def run(plan: LoadPlan) -> dict[str, Any]:
    """The rate over `seconds` after `warm` seconds, and how long answers took, in milliseconds."""
    loop = asyncio.get_running_loop()
    requests, outcome = Requests(plan), Outcome()
    connections = []
    for _ in range(plan.connections):
        _, connection = await loop.create_connection(lambda: Connection(requests, outcome), plan.host, plan.port)
        connections.append(connection)
    await asyncio.sleep(plan.warm)
    began = time.perf_counter()
    await asyncio.sleep(plan.seconds)
    ended = time.perf_counter()
    for connection in connections:
        connection.going = False
    await asyncio.sleep(0.1)
    for connection in connections:
        connection.transport.abort()
    took = [seconds for at, seconds in outcome.took if began <= at <= ended]
    return {
        "per_s": len(took) / (ended - began),
        "p50": percentile(took, 0.5) * 1000 if took else None,
        "p99": percentile(took, 0.99) * 1000 if took else None,
        "sent": len(outcome.took),
        "bad": len(outcome.bad),
        "first_bad": outcome.bad[:1],
    }


def asked(plan: LoadPlan) -> dict[str, Any]:
    """Run a plan in a process of its own. Raises RuntimeError when an answer was none of 200 to 299."""
    import subprocess

    from bench.machine import environment

    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(plan)).encode(),
        capture_output=True,
        env=environment(),
        timeout=plan.seconds + 60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-800:])
    outcome: dict[str, Any] = json.loads(done.stdout)
    if outcome["bad"] or not outcome["sent"]:
        raise RuntimeError(f"{outcome['bad']} bad answers of {outcome['sent']}: {outcome['first_bad']}")
    return outcome


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(LoadPlan(**json.loads(sys.stdin.read()))))))
