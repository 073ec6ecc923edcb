"""Signed deliveries from the durable queue: a burst, and one at a time; beside a bare client loop and pgqueuer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.databases import postgres
from bench.figures import Line, median, percentile
from bench.machine import HOST, PEERS, ROOT, NotHere, cpu_seconds, environment, running, say, tree
from bench.ours import BENCH, PLURAL, daemon, document, name_of, on_uvloop, opened, value
from bench.receiving import Receiver, receiver

PART = "signed deliveries, one target"
BURST = 5000
IN_FLIGHT = 64
PACED_TURNS = 3
"""Their median counts: a single turn says more about the machine than about us."""
SETTINGS = {"REGISTRY_MAX_IN_FLIGHT": str(IN_FLIGHT), "REGISTRY_MAX_IN_FLIGHT_PER_TARGET": str(IN_FLIGHT)}
_TIMEOUT = 120


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Line]:
    """All of it on one home and one receiver."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(receiver(folder))
        try:
            queue = stack.enter_context(pgqueuer(folder))
        except NotHere as error:
            say(str(error))
            queue = None
        home = folder / "deliveries"
        with_target(home, sink)
        numbers = count(0, BURST)
        sides: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            say("deliveries: ours")
            sides.setdefault("ours", []).append(burst(home, sink, next(numbers)))
            size = sink.told()["bytes"]
            sides.setdefault("bare", []).append(_bare(sink, size))
            if queue is not None:
                say("deliveries: pgqueuer")
                sides.setdefault("pgqueuer", []).append(queue.burst(sink, size))
        lines = _bursts(sides)
        for rate in (50, 200):
            turns = []
            for turn in range(PACED_TURNS):
                say(f"deliveries: {rate}/s, turn {turn + 1}")
                turns.append(_paced(home, sink, rate, 3.0 if quick else 10.0, (turn + 1) * 10_000_000 + rate * 10_000))
            lines += _paced_lines(rate, turns)
    return lines


def with_target(home: Path, sink: Receiver) -> None:
    """A home whose records of the bench's kind go to the sink."""
    with daemon(home) as served:
        served.add_target(sink.url, "kind=setting,namespace=default")


# --- a burst --------------------------------------------------------------------------------------------------------


def burst(home: Path, sink: Receiver, first: int, *, number: int = BURST) -> tuple[float, float]:
    """Deliveries a second, from the first receipt to the last, and CPU seconds for 1,000 of them, putting included.

    The records are put one by one while no daemon runs; it then finds them in the log.
    """
    sink.reset()
    before = os.times()
    on_uvloop(_put_each(home, first, number))
    used = os.times()
    putting = used.user + used.system - before.user - before.system
    with daemon(home, **SETTINGS) as served:
        ready = cpu_seconds(served.pid)
        sink.await_count(number)
        told = sink.told()
        spent = cpu_seconds(served.pid) - ready
    if told["signed"] != told["count"] or told["count"] != number:
        raise RuntimeError(f"{told['signed']} signed of {told['count']}, {number} expected")
    return _rate(told), (putting + spent) / number * 1000


async def _put_each(home: Path, first: int, number: int) -> None:
    async with opened(home) as app:
        left = iter(range(first, first + number))

        async def put() -> None:
            for each in left:
                await app.service.put(document(name_of(each % BURST), each), actor=BENCH)

        await asyncio.gather(*(put() for _ in range(256)))


def _rate(told: dict[str, Any]) -> float:
    began, ended = told["times"]
    return float((told["count"] - 1) / (ended - began))


def _bare(sink: Receiver, size: int) -> tuple[float, float]:
    sink.reset()
    command = [sys.executable, "-m", "bench.client", sink.url, str(BURST), str(IN_FLIGHT), str(size)]
    done = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT, timeout=_TIMEOUT, check=True)
    return _rate(sink.told()), float(done.stdout) / BURST * 1000


def _bursts(sides: dict[str, list[tuple[float, float]]]) -> list[Line]:
    rates = {side: median([rate for rate, _ in found]) for side, found in sides.items()}
    cpu = {side: median([seconds for _, seconds in found]) for side, found in sides.items()}
    what, note = f"burst of {BURST:,}", f"in_flight {IN_FLIGHT}"
    lines = [
        Line(
            part=PART, what=what, ours=rates["ours"], unit="deliveries/s", beside="bare aiohttp loop",
            theirs=rates["bare"], note=note,
        )
    ]  # fmt: skip
    if "pgqueuer" in rates:
        lines.append(
            Line(
                part=PART, what=what, ours=rates["ours"], unit="deliveries/s", beside="pgqueuer",
                theirs=rates["pgqueuer"], bar=1.5, note=note,
            )
        )  # fmt: skip
        lines.append(_cpu_line(cpu["ours"], "pgqueuer", cpu["pgqueuer"], None, "each put, each job on its own"))
    lines.append(_cpu_line(cpu["ours"], "bare aiohttp loop", cpu["bare"], None))
    lines.append(_cpu_line(cpu["ours"], "limit", 0.30, 1.0))
    return lines


def _cpu_line(ours: float, beside: str, theirs: float, bar: float | None, note: str = "") -> Line:
    return Line(
        part=PART, what="CPU for 1,000, putting included", ours=ours, unit="s", beside=beside, theirs=theirs, bar=bar,
        less_is_better=True, note=note,
    )  # fmt: skip


# --- one at a time --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Turn:
    """Milliseconds from put to receipt, CPU seconds for 1,000, and the share of a core."""

    p50: float
    p99: float
    cpu: float
    share: float


def _paced(home: Path, sink: Receiver, rate: int, seconds: float, first: int) -> _Turn:
    """From before a put is sent to its receipt at the target, at a steady rate."""
    sink.reset()
    with daemon(home, **SETTINGS) as served:
        on_uvloop(_puts(served.port, served.token, rate, 1.0, first + 5_000_000))
        spent = cpu_seconds(served.pid)
        began = time.monotonic()
        sent = on_uvloop(_puts(served.port, served.token, rate, seconds, first))
        spent, elapsed = cpu_seconds(served.pid) - spent, time.monotonic() - began
        sink.await_count(len(sent) + rate)
    came = sink.told()["marks"]
    took = [(came[f"{number:08d}"] - at) * 1000 for number, at in sent.items()]
    return _Turn(percentile(took, 0.5), percentile(took, 0.99), spent / len(sent) * 1000, spent / elapsed)


def _paced_lines(rate: int, turns: Sequence[_Turn]) -> list[Line]:
    """The medians of the turns."""
    limits = {50: (2.2, 5.0), 200: (None, None)}[rate]
    note = f"median of {len(turns)} turns"
    lines = [
        Line(
            part=PART, what=f"put to receipt at {rate}/s, {name}", ours=median([getattr(turn, name) for turn in turns]),
            unit="ms", beside="limit" if limit else "", theirs=limit, bar=1.0 if limit else None, less_is_better=True,
            note=note,
        )
        for name, limit in zip(("p50", "p99"), limits, strict=True)
    ]  # fmt: skip
    lines.append(_cpu_line(median([turn.cpu for turn in turns]), f"limit, at {rate}/s", 0.30, None))
    if rate == 50:
        lines.append(
            Line(
                part=PART, what="share of a core at 50/s", ours=median([turn.share for turn in turns]) * 100, unit="%",
                beside="limit", theirs=10.0, bar=1.0, less_is_better=True, note=note,
            )
        )  # fmt: skip
    return lines


async def _puts(port: int, token: str, rate: int, seconds: float, first: int) -> dict[int, float]:
    """Put at a steady rate over eight connections; when each was sent, by its number."""
    sent: dict[int, float] = {}
    numbers = iter(range(first, first + int(rate * seconds)))
    began = time.monotonic()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for number in numbers:
            await asyncio.sleep(max(0.0, began + (number - first) / rate - time.monotonic()))
            body = json.dumps({"spec": {"value": value(number)}}).encode()
            head = f"PUT /v1/default/{PLURAL}/{name_of(number % BURST)} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
            head += f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            sent[number] = time.monotonic()
            writer.write(head.encode() + b"\r\n\r\n" + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            if not answer.startswith(b"HTTP/1.1 2"):
                raise RuntimeError(answer.decode(errors="replace")[:300])
        writer.close()

    await asyncio.gather(*(connection() for _ in range(8)))
    return sent


# --- pgqueuer -------------------------------------------------------------------------------------------------------


class _PgQueuer:
    """pgqueuer on a PostgreSQL that fsyncs."""

    def __init__(self, server: Any, folder: Path) -> None:
        self._server = server
        self._log = folder / "pgqueuer.log"
        self._say("install")

    def _command(self, role: str, *rest: object) -> list[str]:
        return [str(PEERS / "bin" / "python"), "-m", "bench.pgqueue", role, str(self._server.folder), *map(str, rest)]

    def _say(self, role: str, *rest: object) -> str:
        command = self._command(role, *rest)
        done = subprocess.run(command, capture_output=True, env=environment(), cwd=ROOT, timeout=_TIMEOUT, check=False)
        if done.returncode:
            raise NotHere(f"pgqueuer {role}: {done.stderr.decode(errors='replace')[-400:]}")
        return done.stdout.decode()

    def _server_cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in tree(self._server._process.pid))

    def burst(self, sink: Receiver, size: int) -> tuple[float, float]:
        """As ours: each job is put on its own, and all wait in the database before the worker starts."""
        sink.reset()
        spent = self._server_cpu()
        spent -= float(self._say("enqueue", BURST, size))
        with running(self._command("work", sink.url, IN_FLIGHT), self._log) as process:
            began = cpu_seconds(process.pid)
            sink.await_count(BURST)
            told = sink.told()
            worker = cpu_seconds(process.pid) - began
            server = self._server_cpu() - spent
        return _rate(told), (worker + server) / BURST * 1000


@contextlib.contextmanager
def pgqueuer(folder: Path) -> Iterator[_PgQueuer]:
    """A server and pgqueuer's tables on it. Raises NotHere."""
    if not (PEERS / "bin" / "python").exists():
        raise NotHere("no pgqueuer here: make bench installs it")
    with postgres() as server:
        server.database("pgqueuer")
        yield _PgQueuer(server, folder)
