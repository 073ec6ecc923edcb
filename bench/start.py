"""The daemon at rest, its start, and a command line's price."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Line, median
from bench.machine import ROOT, environment, memory_mb, say
from bench.ours import Daemon, daemon

PART = "daemon and command line"


def measure(folder: Path, *, rounds: int) -> list[Line]:
    """Medians of several starts, and of calls in turns with a Python that does nothing."""
    say("start, memory, command line")
    home, took, memory = folder / "start", [], []
    for _ in range(rounds):
        with daemon(home) as served:
            took.append(served.took)
            time.sleep(0.5)  # what a start needs for a moment only is given back by then
            memory.append(memory_mb(served.pid))
    with daemon(home) as served:
        get, nothing = _calls(served, rounds * 5)
    return [
        Line(
            part=PART, what="start to ready", ours=median(took), unit="s", beside="limit", theirs=0.5, bar=1.0,
            less_is_better=True,
        ),
        Line(
            part=PART, what="resident memory, idle", ours=median(memory), unit="MB", beside="limit", theirs=64.0,
            bar=1.0, less_is_better=True,
        ),
        Line(
            part=PART, what="ureg get", ours=get, unit="ms", beside="python -c pass", theirs=nothing, bar=6.0,
            less_is_better=True,
        ),
    ]  # fmt: skip


def _calls(served: Daemon, times: int) -> tuple[float, float]:
    served.client.request("PUT", "/v1/default/aliases/gs", json={"spec": {"command": "git status"}})
    env = environment(REGISTRY_HOME=str(served.places.home))
    got, passed = [], []
    for _ in range(times):
        got.append(_timed([sys.executable, "-P", "-m", "universal_registry", "get", "alias", "gs"], env))
        passed.append(_timed([sys.executable, "-c", "pass"], env))
    return median(got), median(passed)


def _timed(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True)
    return (time.perf_counter() - began) * 1000
