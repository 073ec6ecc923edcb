"""500 bytes to 1,000 WebSocket subscribers: bursts of 50, one at a time, and with one that has stopped reading.

Ours are events of a stream: stored durably, with cursors, a token each, and back-pressure. Beside it, in the same run,
nats-server's WebSocket, which stores nothing. One process holds all subscribers, and counts what came by a marker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.figures import Line, median, percentile
from bench.machine import HOST, PEERS, NotHere, await_port, free_port, memory_mb, running, say
from bench.ours import Daemon, daemon, on_uvloop

PART = "fan-out over WebSockets, 500 bytes"
SUBSCRIBERS, BURST, STREAM = 1000, 50, "room"
_MARK = b'"mark":"m"'
_VALUE = {"mark": "m", "body": ""}
_VALUE["body"] = "x" * (500 - len(json.dumps(_VALUE, separators=(",", ":"))))
VALUE = json.dumps(_VALUE, separators=(",", ":")).encode()
_PATIENCE = 30.0
_PACE = 0.05


def frame(message: bytes, opcode: int = 1) -> bytes:
    """As a client sends it; a mask of zeros leaves it as it is."""
    size = len(message)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE)) + struct.pack(">H", size)
    return head + bytes(4) + message


def _upgrade(path: str, token: str = "") -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([*lines, *([f"Authorization: Bearer {token}"] if token else []), "", ""]).encode()


class Subscriber(asyncio.Protocol):
    """`steps`: what it sends, and what must come before the next."""

    def __init__(self, steps: list[tuple[bytes, bytes]], on: Callable[[int], None]) -> None:
        self.steps, self.on, self.tail, self.at = steps, on, b"", 0
        self.ready = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        self.transport = transport  # type: ignore[assignment]
        self.transport.write(self.steps[0][0])

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        data = self.tail + data
        while self.at < len(self.steps):
            found = data.find(self.steps[self.at][1])
            if found < 0:
                self.tail = data
                return
            data = data[found + len(self.steps[self.at][1]) :]
            self.at += 1
            if self.at < len(self.steps):
                self.transport.write(self.steps[self.at][0])
            else:
                self.ready.set_result(None)
        count = data.count(_MARK)
        self.tail = data[-(len(_MARK) - 1) :]
        if count:
            self.on(count)


class Run:
    """Subscribers of one server, and the one that publishes to them."""

    def __init__(self, port: int, steps: list[tuple[bytes, bytes]], publisher: list[tuple[bytes, bytes]]) -> None:
        self.port, self.steps, self.publisher_steps = port, steps, publisher
        self.subscribers: list[Subscriber] = []
        self.publisher: Subscriber
        self.got, self.wanted, self.began = 0, -1, 0.0
        self.all_there: asyncio.Future[None]
        self.latencies: list[float] = []

    def _on(self, count: int) -> None:
        self.got += count
        self.latencies += [time.perf_counter() - self.began] * count
        if self.got >= self.wanted and not self.all_there.done():
            self.all_there.set_result(None)

    async def connect(self, port: int) -> None:
        """All of them."""
        loop = asyncio.get_running_loop()
        self.all_there = loop.create_future()
        for _ in range(0, SUBSCRIBERS, 50):
            made = await asyncio.gather(
                *(loop.create_connection(lambda: Subscriber(self.steps, self._on), HOST, self.port) for _ in range(50))
            )
            self.subscribers += [each for _, each in made]
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*(each.ready for _, each in made))
        _, self.publisher = await loop.create_connection(
            lambda: Subscriber(self.publisher_steps, lambda _: None), HOST, port
        )
        await self.publisher.ready

    async def send(self, message: bytes, count: int, readers: int = SUBSCRIBERS) -> int:
        """Publish so many; how many came, when all have, or nothing comes any more."""
        self.got, self.wanted = 0, readers * count
        self.all_there = asyncio.get_running_loop().create_future()
        self.began = time.perf_counter()
        self.publisher.transport.write(message * count)
        async with asyncio.timeout(_PATIENCE):
            await self.all_there
        return self.got

    async def rate(self, message: bytes, count: int, seconds: float) -> float:
        """Messages a second, over all subscribers."""
        began, got = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds:
            got += await self.send(message, count)
        return got / took

    async def paced(self, message: bytes, seconds: float, readers: int = SUBSCRIBERS) -> float:
        """The p99 of the way from publisher to subscriber, in ms, at 20 a second."""
        self.latencies.clear()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            await self.send(message, 1, readers)
            await asyncio.sleep(max(0.0, _PACE - (time.perf_counter() - self.began)))
        return percentile(self.latencies, 0.99) * 1000

    def close(self) -> None:
        """Drop all."""
        for each in (*self.subscribers, self.publisher):
            each.transport.abort()


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Line]:
    """Ours and theirs, in turns."""
    seconds = 1.0 if quick else 3.0
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    for number in range(rounds):
        with daemon(folder / f"fanout{number}") as served:
            say(f"fanout: ours, round {number + 1}")
            _keep(ours, on_uvloop(_of_ours(served, seconds)))
        with contextlib.suppress(NotHere), _nats(folder / f"nats{number}") as (port, ws_port, pid):
            say(f"fanout: nats-server, round {number + 1}")
            _keep(theirs, on_uvloop(_of_nats(port, ws_port, pid, seconds)))
    return _lines(ours, theirs)


def _keep(found: dict[str, list[float]], more: dict[str, float]) -> None:
    for name, value in more.items():
        found.setdefault(name, []).append(value)


async def _of_ours(served: Daemon, seconds: float) -> dict[str, float]:
    record = {"classification": "WebSocketEndpoint", "spec": {"protocol": "websocket"}}
    served.client.request("PATCH", f"/v1/default/endpoints/{STREAM}", json=record)
    before = memory_mb(served.pid)
    head = _upgrade("/v1/stream", served.token).replace(HOST.encode(), f"{HOST}:{served.port}".encode(), 1)
    subscribe = {"type": "subscribe", "from": "now", "select": f"kind=endpoint,name={STREAM}"}
    steps = [(head, b"\r\n\r\n"), (frame(json.dumps(subscribe).encode()), b'"synced"')]
    run = Run(served.port, steps, steps[:1])
    message = frame(b'{"type":"event","stream":"%b","data":%b}' % (STREAM.encode(), VALUE))
    return await _measured(run, served.port, message, served.pid, before, seconds, stop=True)


async def _of_nats(port: int, ws_port: int, pid: int, seconds: float) -> dict[str, float]:
    before = memory_mb(pid)
    hello = b'CONNECT {"verbose":false,"pedantic":false}\r\n'
    steps = [(_upgrade("/"), b"\r\n\r\n"), (frame(hello + b"SUB f 1\r\nPING\r\n", 2), b"PONG\r\n")]
    run = Run(ws_port, steps, [(hello + b"PING\r\n", b"PONG\r\n")])
    message = b"PUB f %d\r\n%b\r\n" % (len(VALUE), VALUE)
    return await _measured(run, port, message, pid, before, seconds, stop=False)


async def _measured(
    run: Run, port: int, message: bytes, pid: int, before: float, seconds: float, *, stop: bool
) -> dict[str, float]:
    await run.connect(port)
    try:
        found = {"kB": (memory_mb(pid) - before) * 1000 / SUBSCRIBERS}
        await run.send(message, 5)
        found["burst"] = await run.rate(message, BURST, seconds)
        found["single"] = await run.rate(message, 1, seconds)
        found["p99"] = await run.paced(message, 3 * seconds)
        if stop:
            run.subscribers[0].transport.pause_reading()
            for _ in range(20):  # until nothing more fits on its way
                await run.send(message, BURST, SUBSCRIBERS - 1)
            found["p99 beside a stopped one"] = await run.paced(message, 3 * seconds, SUBSCRIBERS - 1)
        return found
    finally:
        run.close()


def _lines(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> list[Line]:
    beside = "nats-server's WebSocket" if theirs else ""
    rows = (
        ("burst", f"to {SUBSCRIBERS:,}, bursts of {BURST}", 1.5),
        ("single", f"to {SUBSCRIBERS:,}, one at a time", 1.3),
    )
    lines = [
        Line(
            part=PART, what=what, ours=median(ours[name]), unit="messages/s", beside=beside,
            theirs=median(theirs[name]) if theirs else None, bar=bar,
        )
        for name, what, bar in rows
    ]  # fmt: skip
    kept = median(theirs["kB"]) if theirs else None
    note = f"nats-server: {kept:.1f} kB" if kept is not None else ""
    lines.append(
        Line(part=PART, what="memory of a subscriber", ours=median(ours["kB"]), unit="kB", beside="a limit", theirs=8.0,
             bar=1.0, less_is_better=True, note=note)
    )  # fmt: skip
    lines.append(
        Line(part=PART, what="p99 of the others, one has stopped", ours=median(ours["p99 beside a stopped one"]),
             unit="ms", beside="without it", theirs=median(ours["p99"]), bar=1.2, less_is_better=True,
             note="20 a second")
    )  # fmt: skip
    return lines


@contextlib.contextmanager
def _nats(folder: Path) -> Iterator[tuple[int, int, int]]:
    """A nats-server: its port, that of its WebSocket, its pid."""
    program = PEERS / "bin" / "nats-server"
    if not program.exists():
        raise NotHere("no nats-server here: make bench installs it")
    folder.mkdir()
    port, ws_port = free_port(), free_port()
    config = folder / "nats.conf"
    config.write_text(
        f'host: "{HOST}"\nport: {port}\nmax_connections: 5000\nmax_pending: 268435456\n'
        f'websocket {{ host: "{HOST}"\nport: {ws_port}\nno_tls: true }}\n'
    )
    with running([program, "-c", config], folder / "nats.log") as process:
        await_port(ws_port, process)
        yield port, ws_port, process.pid
