"""Does a delivery get dearer as targets become many? The same number of signed events, over 1, 100 and 10,000 targets.

Each event has a payload of its own, which is sealed at rest, and each target a secret of its own. All of them are one
sink by different paths, so that what differs is the engine's work alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from pathlib import Path

from bench.deliveries import SETTINGS
from bench.figures import Line, median
from bench.machine import cpu_seconds, say
from bench.ours import BENCH, daemon, on_uvloop, opened, value
from bench.receiving import Receiver, receiver
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.signing import new_secret

PART = "signed deliveries, events sealed at rest, many targets"
FLEETS = (1, 100, 10_000)
_MOST, _RATE = 1.25, "deliveries/s"


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Line]:
    """Homes of their own for each size, in turns; and one event for all targets of the largest."""
    fleets = (1, 100, 1000) if quick else FLEETS
    number, largest = fleets[-1], fleets[-1]
    spread: dict[int, list[tuple[float, float]]] = {size: [] for size in fleets}
    at_once: list[tuple[float, float]] = []
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(receiver(folder))
        homes = {size: folder / f"fleet{size}" for size in fleets}
        for size, home in homes.items():
            say(f"fleet: {size:,} targets")
            on_uvloop(_make(home, sink, size))
        numbers = count()
        for _ in range(rounds):
            for size, home in homes.items():
                say(f"fleet: {number:,} events, {size:,} targets")
                spread[size].append(_sent(home, sink, [(f"t{each % size}",) for each in range(number)], next(numbers)))
            say(f"fleet: one event, {largest:,} targets")
            everyone = tuple(f"t{each}" for each in range(largest))
            at_once.append(_sent(homes[largest], sink, [everyone], next(numbers)))
    return _lines(number, spread, at_once)


def _lines(number: int, spread: dict[int, list[tuple[float, float]]], at_once: list[tuple[float, float]]) -> list[Line]:
    fleets = sorted(spread)
    cost = {size: median([seconds for _, seconds in spread[size]]) for size in fleets}
    note = f"{number:,} events, each for one target"
    lines = [
        Line(
            part=PART, what=f"targets: {size:,}", ours=median([rate for rate, _ in spread[size]]), unit=_RATE, note=note
        )
        for size in fleets
    ]
    lines += [_cost(f"CPU for 1,000 to {size:,} targets", cost[size], cost[fleets[0]]) for size in fleets[1:]]
    rate, seconds = (median([each[at] for each in at_once]) for at in (0, 1))
    note = f"one event for {fleets[-1]:,} targets"
    lines.append(Line(part=PART, what="one for all", ours=rate, unit=_RATE, note=note))
    lines.append(_cost("CPU for 1,000, one for all", seconds, cost[fleets[0]]))
    return lines


def _cost(what: str, ours: float, to_one: float) -> Line:
    return Line(
        part=PART, what=what, ours=ours, unit="s", beside="to 1", theirs=to_one, bar=_MOST, less_is_better=True,
        note="of the daemon",
    )  # fmt: skip


async def _make(home: Path, sink: Receiver, size: int) -> None:
    world = SystemWorld()
    async with opened(home) as app:
        for start in range(0, size, 500):
            documents = [_target(f"t{each}", sink, new_secret(world)) for each in range(start, min(start + 500, size))]
            await app.service.batch(documents, actor=BENCH)


def _target(name: str, sink: Receiver, secret: str) -> dict[str, object]:
    delivery = {"transport": "webhook", "network": "loopback", "secret": secret}
    spec = {"url": f"{sink.url}/{name}", "protocol": "webhook", "delivery": delivery}
    return {"op": "put", "kind": "endpoint", "namespace": "system", "name": name, "spec": spec}


def _sent(home: Path, sink: Receiver, audiences: list[tuple[str, ...]], turn: int) -> tuple[float, float]:
    """Deliveries a second, from the first receipt to the last, and CPU seconds of the daemon for 1,000 of them.

    The events are in the log before the daemon starts, with its lanes at the end of what they had before.
    """
    sink.reset()
    number = sum(map(len, audiences))
    with daemon(home, **SETTINGS):  # lanes are made, and read what the log has about targets
        pass
    on_uvloop(_emit(home, audiences, turn))
    with daemon(home, **SETTINGS) as served:
        ready = cpu_seconds(served.pid)
        sink.await_count(number)
        spent = cpu_seconds(served.pid) - ready
        told = sink.told()
    if told["signed"] != told["count"] or told["count"] != number:
        raise RuntimeError(f"{told['signed']} signed of {told['count']}, {number} expected")
    began, ended = told["times"]
    return (number - 1) / (ended - began), spent / number * 1000


async def _emit(home: Path, audiences: list[tuple[str, ...]], turn: int) -> None:
    world = SystemWorld()
    async with opened(home) as app:
        left = iter(enumerate(audiences))

        async def emit() -> None:
            for index, names in left:
                await app.service.emit(
                    Key("service", "default", f"source{index % 100}"),
                    {"text": value(turn * 1_000_000 + index)},
                    session=world.new_id(),
                    audience=[f"system/{name}" for name in names],
                    actor=BENCH,
                )

        await asyncio.gather(*(emit() for _ in range(256)))
