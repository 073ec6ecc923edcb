"""`ureg get` is quick enough to be used in a prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

ROUNDS = 15


def least_work(command: list[str], environ: dict[str, str]) -> float:
    """The least processor seconds of some runs: what the command itself takes, whatever else the machine does."""
    used = []
    for _ in range(ROUNDS):
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        used.append(usage.ru_utime + usage.ru_stime)
    return min(used)


@pytest.mark.parametrize("form", [[], ["-o", "json"]])
def test_get_takes_at_most_six_times_what_python_takes_to_do_nothing(online: Any, form: list[str]) -> None:
    online("set", "alias", "gs", "command=git status")
    online("get", "alias", "gs", *form)
    nothing = least_work([sys.executable, "-c", "pass"], online.environ)
    start = "import sys; from universal_registry.__main__ import main; sys.exit(main())"
    got = least_work([sys.executable, "-P", "-c", start, "get", "alias", "gs", *form], online.environ)
    assert got <= 6 * nothing, f"{got * 1000:.0f} ms against {nothing * 1000:.0f} ms"
