"""`ureg get` is quick enough to be used in a prompt."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

ROUNDS = 15


def fastest(command: list[str], environ: dict[str, str]) -> float:
    """The least seconds of some runs: what the command itself takes, whatever else the machine does."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize("form", [[], ["-o", "json"]])
def test_get_takes_at_most_six_times_what_python_takes_to_do_nothing(online: Any, form: list[str]) -> None:
    online("set", "alias", "gs", "command=git status")
    online("get", "alias", "gs", *form)
    nothing = fastest([sys.executable, "-c", "pass"], online.environ)
    start = "import sys; from universal_registry.__main__ import main; sys.exit(main())"
    got = fastest([sys.executable, "-P", "-c", start, "get", "alias", "gs", *form], online.environ)
    assert got <= 6 * nothing, f"{got * 1000:.0f} ms against {nothing * 1000:.0f} ms"
