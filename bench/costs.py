"""Does anything get dearer as the store and the backlog grow? A small store and a large one, in turns."""

from __future__ import annotations

import contextlib
from itertools import count
from pathlib import Path

from bench.deliveries import BURST, SETTINGS, with_target
from bench.figures import Line, median
from bench.machine import say
from bench.ours import BENCH, daemon, document, name_of, on_uvloop, opened
from bench.receiving import Receiver, receiver
from bench.writes import rate
from universal_registry.app import App

PART = "cost curves"
SMALL = 1000
_WRITERS = 256


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Line]:
    """Half of the large store's records are for no target, the other half wait for delivery."""
    half = 50_000 if quick else 500_000
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(receiver(folder))
        tiny, small, large = (folder / name for name in ("tiny", "small", "large"))
        say(f"costs: a store of {2 * half:,} records")
        on_uvloop(fill_records(tiny, "default", SMALL))
        on_uvloop(fill_records(large, "other", half))
        for home in (small, large):
            with_target(home, sink)
        on_uvloop(fill_records(large, "default", half))
        few, many = [], []
        for turn in range(rounds):
            say("costs: deliveries")
            on_uvloop(fill_records(small, "default", BURST, first=(turn + 1) * 1_000_000, names=BURST))
            few.append(_delivered(small, sink))
            many.append(_delivered(large, sink))
        cheap, dear = _write_rates(tiny, large, half, rounds)
    return [
        Line(
            part=PART, what=f"write cost at {2 * half:,} records", ours=1e6 / median(dear), unit="us/write",
            beside=f"at {SMALL:,} records", theirs=1e6 / median(cheap), bar=1.25, less_is_better=True,
            note=f"{_WRITERS} writers",
        ),
        Line(
            part=PART, what=f"deliveries with {half:,} pending", ours=median(many), unit="deliveries/s",
            beside=f"with {BURST:,}", theirs=median(few), bar=0.9,
        ),
    ]  # fmt: skip


async def fill_records(home: Path, namespace: str, number: int, *, first: int = 0, names: int | None = None) -> None:
    """So many puts in batches of 100, over `names` records."""
    async with opened(home) as app:
        for start in range(first, first + number, 100):
            numbers = range(start, min(start + 100, first + number))
            operations = [
                {**document(name_of(each % (names or number)), each), "op": "put", "namespace": namespace}
                for each in numbers
            ]
            await app.service.batch(operations, actor=BENCH)


def _delivered(home: Path, sink: Receiver) -> float:
    """The rate of the first BURST deliveries after a start."""
    sink.reset()
    with daemon(home, **SETTINGS):
        sink.await_count(BURST)
        every = sink.told()["every500"]
    last = min(len(every) - 1, BURST // 500 - 1)
    return float(last * 500 / (every[last] - every[0]))


def _write_rates(tiny: Path, large: Path, half: int, rounds: int) -> tuple[list[float], list[float]]:
    async def both() -> tuple[list[float], list[float]]:
        cheap, dear, numbers = [], [], count(100_000_000)
        async with opened(tiny) as few, opened(large) as many:
            for _ in range(rounds):
                say("costs: writes")
                cheap.append(await _writes(few, SMALL, numbers))
                dear.append(await _writes(many, half, numbers))
        return cheap, dear

    return on_uvloop(both())


async def _writes(app: App, names: int, numbers: count[int]) -> float:
    return await rate(app, _WRITERS, 2.0, numbers, names=names)
