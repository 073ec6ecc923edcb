"""Watches: what one that is far behind costs writers, how soon a put is told (beside etcd), and how many are told of it
(200 watchers, beside NATS JetStream)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.figures import Line, median, percentile
from bench.load import asked
from bench.machine import HOST, PEERS, NotHere, await_port, environment, free_port, running, say
from bench.ours import BENCH, PLURAL, Daemon, daemon, document, name_of, on_uvloop, opened, value
from bench.web import etcd, our_plans

PART = "Watches"
WATCHERS = 200
_AT_ONCE = 256
_REVISION = re.compile(rb'"type":"changes","cursor":"[0-9a-f.]+","revision":(\d+)')


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Line]:
    """All three."""
    return [
        *behind(folder / "behind", rounds=rounds, count=20_000 if quick else 500_000),
        *soon(folder, count=200 if quick else 2000),
        *many(folder, count=100 if quick else 500),
    ]


# --- far behind -----------------------------------------------------------------------------------------------------


async def write_history(home: Path, count: int) -> None:
    """So many revisions of 1,000 records."""
    async with opened(home) as app:
        for start in range(0, count, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, count))
            await asyncio.gather(*(app.service.put(document(name_of(n % 1000), n), actor=BENCH) for n in numbers))


def behind(folder: Path, *, rounds: int, count: int) -> list[Line]:
    """The slowest puts at 64 and at 4 connections while a watcher reads `count` revisions, and without it."""
    began = time.perf_counter()
    on_uvloop(write_history(folder, count))
    say(f"watch: {count} revisions written in {time.perf_counter() - began:.0f} s")
    found: dict[tuple[int, bool], list[float]] = {}
    with daemon(folder) as served:
        alone = catch_up(served, count)
        say(f"watch: caught up {alone}")
        plan = replace(our_plans(served.port, served.token)["put"], seconds=4.0)
        for at in range(rounds):
            for connections in (64, 4):
                for watched in (False, True) if at % 2 == 0 else (True, False):
                    with reader(served) if watched else contextlib.nullcontext():
                        outcome = asked(replace(plan, connections=connections, first=10_000_000 + 1_000_000 * at))
                    found.setdefault((connections, watched), []).append(outcome["p99"])
    lines = [
        Line(
            part=PART,
            what=f"p99 of puts at {connections} connections, a watcher {count:,} revisions behind",
            ours=median(found[connections, True]),
            unit="ms",
            beside="without it",
            theirs=median(found[connections, False]),
            bar=1.1,
            less_is_better=True,
        )
        for connections in (64, 4)
    ]
    note = "complete" if alone["gaps"] == 0 and alone["count"] == count else f"NOT COMPLETE: {alone}"
    lines.append(Line(part=PART, what="catching up, nobody writes", ours=alone["per_s"], unit="revisions/s", note=note))
    return lines


def _head(served: Daemon, query: str) -> bytes:
    auth = f"Host: {HOST}:{served.port}\r\nAuthorization: Bearer {served.token}"
    return f"GET /v1/-/watch?{query} HTTP/1.1\r\n{auth}\r\n\r\n".encode()


@contextlib.contextmanager
def reader(served: Daemon, upto: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that watches from the beginning; with `upto`, to that revision."""
    command = [sys.executable, "-m", "bench.watch", str(served.port), served.token, str(upto)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun: what its start costs is not what is measured
        yield process
    finally:
        process.kill()
        process.communicate()


def catch_up(served: Daemon, count: int) -> dict[str, Any]:
    """What a watcher from the beginning is told, and how fast."""
    with reader(served, count) as process:
        assert process.stdout is not None
        return dict(json.loads(process.stdout.readline()))


def _read(port: int, token: str, upto: int) -> None:
    import socket

    sock = socket.create_connection((HOST, port))
    auth = f"Host: {HOST}:{port}\r\nAuthorization: Bearer {token}"
    sock.sendall(f"GET /v1/-/watch?from=beginning HTTP/1.1\r\n{auth}\r\n\r\n".encode())
    began, rest, last, count, gaps = time.perf_counter(), b"", 0, 0, 0
    sock.recv(1)
    print("begun", flush=True)
    while data := sock.recv(1 << 20):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if (match := _REVISION.search(line[:200])) is not None:
                revision = int(match[1])
                gaps += revision != last + 1
                last, count = revision, count + 1
        if upto and last >= upto:
            seconds = time.perf_counter() - began
            print(json.dumps({"count": count, "gaps": gaps, "per_s": count / seconds}), flush=True)
            return


# --- how soon -------------------------------------------------------------------------------------------------------


class Stream(asyncio.Protocol):
    """A connection: `on_data` is given what comes."""

    def __init__(self, first: bytes, on_data: Callable[[bytes], None]) -> None:
        self._first = first
        self._on_data = on_data
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        self._on_data(data)


async def _told_after(port: int, watch: bytes, request: Callable[[int], bytes], marks: int) -> list[float]:
    """Seconds from sending each put, one after the other, until a watcher on another connection has it."""
    loop = asyncio.get_running_loop()
    told, acked, buffer = asyncio.Event(), asyncio.Event(), bytearray()
    wanted, at = b"", 0.0
    moment = 0.0

    def on_watch(data: bytes) -> None:
        nonlocal moment
        buffer.extend(data)
        if wanted and wanted in buffer:
            moment = time.perf_counter()
            buffer.clear()
            told.set()

    def on_put(data: bytes) -> None:
        if b"\r\n\r\n" in data:
            acked.set()

    _, watcher = await loop.create_connection(lambda: Stream(watch, on_watch), HOST, port)
    await asyncio.sleep(0.5)
    _, writer = await loop.create_connection(lambda: Stream(b"", on_put), HOST, port)
    took = []
    for number in range(10_000_000, 10_000_000 + marks):
        body, wanted = request(number)
        told.clear()
        acked.clear()
        at = time.perf_counter()
        writer.transport.write(body)
        async with asyncio.timeout(10):
            await told.wait()
            await acked.wait()
        took.append(moment - at)
    for each in (watcher, writer):
        each.transport.abort()
    return took[marks // 10 :]


def soon(folder: Path, *, count: int) -> list[Line]:
    """From a put to what a watcher is told, beside etcd's."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(daemon(folder / "soon"))
        auth = f"Host: {HOST}:{served.port}\r\nAuthorization: Bearer {served.token}"

        def put(number: int) -> tuple[bytes, bytes]:
            body = json.dumps({"spec": {"value": value(number)}}).encode()
            head = f"PUT /v1/default/{PLURAL}/{name_of(number % 100)} HTTP/1.1\r\n{auth}\r\n"
            return head.encode() + _framed(body), b"mark:%08d" % number

        ours = on_uvloop(_told_after(served.port, _head(served, "from=now"), put, count))  # type: ignore[arg-type]
        theirs: list[float] | None = None
        try:
            port = stack.enter_context(etcd(folder))
        except NotHere as error:
            say(str(error))
        else:

            def etcd_put(number: int) -> tuple[bytes, bytes]:
                text = f"{number:08d}" + b64encode(value(0).encode()).decode()[8:]
                key = b64encode(name_of(number % 100).encode()).decode()
                body = json.dumps({"key": key, "value": text}).encode()
                head = f"POST /v3/kv/put HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
                return head.encode() + _framed(body), b"%08d" % number

            asked_for = {"create_request": {"key": b64encode(b"k").decode(), "range_end": b64encode(b"l").decode()}}
            body = json.dumps(asked_for).encode()
            watch = f"POST /v3/watch HTTP/1.1\r\nHost: {HOST}:{port}\r\n".encode() + _framed(body)
            theirs = on_uvloop(_told_after(port, watch, etcd_put, count))  # type: ignore[arg-type]
    return [
        Line(
            part=PART,
            what=f"put to watcher, {word}",
            ours=percentile(ours, share) * 1000,
            unit="ms",
            beside="etcd's watch" if theirs else "",
            theirs=percentile(theirs, share) * 1000 if theirs else None,
            bar=1.0,
            less_is_better=True,
        )
        for word, share in (("p50", 0.5), ("p99", 0.99))
    ]


def _framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


# --- how many -------------------------------------------------------------------------------------------------------


async def _notices(
    port: int, firsts: list[list[bytes]], mark: bytes, request: Callable[[int], bytes], reply: bytes, count: int
) -> float:
    """Notices a second, of `count` messages to all watchers, sixteen under way. `firsts`: what each watcher sends."""
    loop = asyncio.get_running_loop()
    got, wanted, done = 0, count * len(firsts), asyncio.Event()

    def on_data(data: bytes) -> None:
        nonlocal got
        got += data.count(mark)
        if got >= wanted:
            done.set()

    streams = []
    for first in firsts:
        _, stream = await loop.create_connection(lambda first=first: Stream(b"".join(first), on_data), HOST, port)
        streams.append(stream)
    await asyncio.sleep(1.0)
    got = 0
    numbers = iter(range(20_000_000, 20_000_000 + count))
    began = time.perf_counter()
    writers = [asyncio.ensure_future(_writer(port, numbers, request, reply)) for _ in range(16)]
    async with asyncio.timeout(120):
        await asyncio.gather(*writers)
        await done.wait()
    seconds = time.perf_counter() - began
    for stream in streams:
        stream.transport.abort()
    return wanted / seconds


async def _writer(port: int, numbers: Iterator[int], request: Callable[[int], bytes], reply: bytes) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    for number in numbers:
        writer.write(request(number))
        data = b""
        while reply not in data:
            data = data[-64:] + await reader.read(1 << 16)
    writer.close()


def many(folder: Path, *, count: int) -> list[Line]:
    """Notices a second to 200 watchers, each put durable before it is told, beside JetStream with fsync always."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(daemon(folder / "many"))
        auth = f"Host: {HOST}:{served.port}\r\nAuthorization: Bearer {served.token}"

        def put(number: int) -> bytes:
            body = json.dumps({"spec": {"value": value(number)}}).encode()
            return f"PUT /v1/default/{PLURAL}/m{number} HTTP/1.1\r\n{auth}\r\n".encode() + _framed(body)

        firsts = [[_head(served, "from=now")] for _ in range(WATCHERS)]
        ours = on_uvloop(_notices(served.port, firsts, b'"type":"changes"', put, b'"effect"', count))
        theirs: float | None = None
        try:
            port = stack.enter_context(jetstream(folder))
            theirs = on_uvloop(_jetstream_notices(port, count))
        except NotHere as error:
            say(str(error))
    return [
        Line(
            part=PART,
            what=f"notices to {WATCHERS} watchers",
            ours=ours,
            unit="notices/s",
            beside="NATS JetStream, sync always" if theirs else "",
            theirs=theirs,
            bar=1.3,
        )
    ]


@contextlib.contextmanager
def jetstream(folder: Path) -> Iterator[int]:
    """A nats-server whose streams fsync each message; its port."""
    program = PEERS / "bin" / "nats-server"
    if not program.is_file():
        raise NotHere("no nats-server here: make bench installs it")
    port = free_port()
    config = folder / "nats.conf"
    store = folder / "nats"
    config.write_text(f'listen: "{HOST}:{port}"\njetstream {{ store_dir: "{store}", sync_interval: always }}\n')
    with running([program, "-c", config], folder / "nats.log") as process:
        await_port(port, process)
        yield port


async def _jetstream_notices(port: int, count: int) -> float:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b'CONNECT {"verbose":false}\r\nSUB r.* 1\r\n')

    async def ask(number: int, subject: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        writer.write(b"PUB %s r.%d %d\r\n%s\r\n" % (subject.encode(), number, len(data), data))
        answer = b""
        while b"MSG r.%d " % number not in answer or not answer.endswith(b"\r\n"):
            answer += await reader.read(1 << 16)
        if b'"error"' in answer:
            raise NotHere(f"JetStream: {answer[-300:]!r}")

    await ask(0, "$JS.API.STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "storage": "file"})
    firsts = []
    for at in range(WATCHERS):
        config = {"deliver_subject": f"d.{at}", "ack_policy": "none", "deliver_policy": "new"}
        name = f"c{at}"
        body = {"stream_name": "S", "config": {**config, "durable_name": name}}
        await ask(at + 1, f"$JS.API.CONSUMER.DURABLE.CREATE.S.{name}", body)
        firsts.append([b'CONNECT {"verbose":false}\r\n', b"SUB d.%d 1\r\n" % at])

    def publish(number: int) -> bytes:
        data = value(number).encode()
        reply = number % 1_000_000
        subscribe = b'CONNECT {"verbose":false}\r\nSUB a.%d 1\r\nUNSUB 1 1\r\n' % reply
        return subscribe + b"PUB s.x a.%d %d\r\n%s\r\n" % (reply, len(data), data)

    found = await _notices(port, firsts, b"MSG s.x ", publish, b'"seq"', count)
    writer.close()
    return found


if __name__ == "__main__":
    _read(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
