"""Ten thousand deliveries wait for a target that was away. It comes back: how fast does it get them, and how hard?

Beside it the same number, found in the log at a start with the target there all the time: a plain drain.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from bench.costs import fill_records
from bench.deliveries import with_target
from bench.figures import Line, median
from bench.machine import free_port, say
from bench.ours import Daemon, daemon, on_uvloop
from bench.receiving import Receiver, receiver

PART = "a herd after an outage, one target that takes 5 ms"
IN_FLIGHT, RATE, PENDING = 32, 2000, 10_000
_SETTINGS = {"REGISTRY_MAX_IN_FLIGHT": "64", "REGISTRY_MAX_IN_FLIGHT_PER_TARGET": str(IN_FLIGHT)}
_MILLISECONDS = 5.0
_PATIENCE = 120.0


def measure(folder: Path, *, rounds: int, quick: bool) -> list[Line]:
    """In turns, on one home: its target allows so many under way, and so many a second."""
    number = PENDING // 10 if quick else PENDING
    port, home, numbers = free_port(), folder / "herd", count(1)
    plain: list[dict[str, Any]] = []
    herd: list[dict[str, Any]] = []
    with_target(home, Receiver(port))
    with daemon(home) as served:
        served.client.request("PATCH", "/v1/-/targets/system/sink", json={"rate": RATE})
    for _ in range(rounds):
        for found, outage in ((plain, False), (herd, True)):
            on_uvloop(fill_records(home, "default", number, first=next(numbers) * 1_000_000, names=number))
            say(f"herd: {number:,} wait, {'after an outage' if outage else 'plain'}")
            found.append(_drained(folder, home, port, number, outage=outage))
    return _lines(number, plain, herd)


def _drained(folder: Path, home: Path, port: int, number: int, *, outage: bool) -> dict[str, Any]:
    """What the target saw, and how many deliveries were given up. `outage`: they have all failed or been parked."""
    with contextlib.ExitStack() as stack:
        if not outage:
            stack.enter_context(_target(folder, port))
        served = stack.enter_context(daemon(home, **_SETTINGS))
        if outage:
            _await(served, lambda status: status["targets"][0]["lane"]["breaker"] == "open" and _rows(status) >= number)
            stack.enter_context(_target(folder, port))
            served.client.request("POST", "/v1/-/targets/system/sink/lane", json={"action": "reset"})
        sink = Receiver(port)
        sink.await_count(number)
        status = _await(served, lambda status: not _rows(status))
        told = sink.told()
    if told["count"] != number:
        raise RuntimeError(f"{told['count']} came, {number} expected")
    began, ended = told["times"]
    return {**told, "rate": (number - 1) / (ended - began), "dead": status["dead"]}


def _target(folder: Path, port: int) -> contextlib.AbstractContextManager[Receiver]:
    return receiver(folder, port=port, milliseconds=_MILLISECONDS)


def _rows(status: dict[str, Any]) -> int:
    return int(status["targets"][0]["lane"]["queued"])


def _await(served: Daemon, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The status, once it is so. Raises RuntimeError when it takes too long."""
    until = time.monotonic() + _PATIENCE
    while not condition(status := served.client.request("GET", "/v1/-/status").json()):
        if time.monotonic() > until:
            raise RuntimeError(f"it did not come to that: {status['targets']}")
        time.sleep(0.05)
    return dict(status)


def _lines(number: int, plain: list[dict[str, Any]], herd: list[dict[str, Any]]) -> list[Line]:
    rates = [median([each["rate"] for each in found]) for found in (herd, plain)]
    highest = {what: max(each[what] for each in herd) for what in ("dead", "most_open", "most_in_second")}
    note = f"{number:,} pending"
    return [
        Line(
            part=PART, what="drained after an outage", ours=rates[0], unit="deliveries/s", beside="plain drain",
            theirs=rates[1], note=note,
        ),
        Line(
            part=PART, what="most under way at once", ours=highest["most_open"], unit="", beside="limit",
            theirs=IN_FLIGHT, bar=1.0, less_is_better=True,
        ),
        Line(
            part=PART, what="most in any second", ours=highest["most_in_second"], unit="", beside="limit", theirs=RATE,
            bar=1.05, less_is_better=True, note="as they arrive",
        ),
        Line(
            part=PART, what="given up, and one", ours=highest["dead"] + 1, unit="", beside="none, and one", theirs=1,
            bar=1.0, less_is_better=True,
        ),
    ]  # fmt: skip
