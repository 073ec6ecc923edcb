"""The receiver of a run, as its owner sees it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import HOST, await_port, free_port, running


class Receiver:
    """A `bench.sink`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}/hook"
        self._base = f"http://{HOST}:{port}"

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(self._base + path, timeout=60) as answer:
            return json.loads(answer.read())

    def reset(self) -> None:
        self._ask("/reset")

    def told(self) -> dict[str, Any]:
        """All that it noted."""
        found: dict[str, Any] = self._ask("/dump")
        return found

    def await_count(self, number: int, seconds: float = 120.0) -> None:
        """Until so many came. Raises RuntimeError when nothing comes any more, or it takes too long."""
        until, had, since = time.monotonic() + seconds, -1, time.monotonic()
        while (has := int(self._ask("/count"))) < number:
            if has != had:
                had, since = has, time.monotonic()
            if time.monotonic() > until or time.monotonic() - since > 20:
                raise RuntimeError(f"{has} of {number} deliveries came")
            time.sleep(0.02)


@contextlib.contextmanager
def receiver(folder: Path, *, port: int | None = None, milliseconds: float = 0.0) -> Iterator[Receiver]:
    """One for the block, which takes so long for each answer."""
    port = port or free_port()
    command = [sys.executable, "-m", "bench.sink", str(port), str(milliseconds)]
    with running(command, folder / "sink.log") as process:
        await_port(port, process)
        yield Receiver(port)
