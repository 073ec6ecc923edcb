"""Our side: the registry in this process, or a daemon of the run."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from bench.machine import HOST, ROOT, NotHere, end, environment, free_port
from universal_registry.app import App, open_app
from universal_registry.client.http import Client
from universal_registry.kernel.settings import Places, PostgresSettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.service import Actor
from universal_registry.runner.daemon import tune_interpreter

BENCH = Actor("uid:0", admin=True)
KIND, PLURAL = "setting", "settings"
_PADDING = "x" * 470
Result = TypeVar("Result")


def value(number: int) -> str:
    """500 bytes, new for each number."""
    return f"mark:{number:08d} {_PADDING}".ljust(500, "x")


def document(name: str, number: int) -> dict[str, Any]:
    """A record with a value of 500 bytes."""
    return {"kind": KIND, "namespace": "default", "name": name, "spec": {"value": value(number)}}


def name_of(number: int) -> str:
    return f"k{number:07d}"


def on_uvloop(work: Awaitable[Result]) -> Result:
    """As the daemon does it."""

    async def main() -> Result:
        tune_interpreter()
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@asynccontextmanager
async def opened(home: Path, database: PostgresSettings | None = None) -> AsyncIterator[App]:
    """The registry of a home in this process, its one owner."""
    app = await open_app(Settings(home=home, database=database), world=SystemWorld(), create=True)
    try:
        yield app
    finally:
        await app.close()


async def fill(app: App, first: int, count: int, *, names: Callable[[int], str] = name_of) -> None:
    """Write records `first` to `first + count`, 2,000 to a revision."""
    for start in range(first, first + count, 2000):
        numbers = range(start, min(start + 2000, first + count))
        operations = [{"op": "put", **document(names(number), number)} for number in numbers]
        await app.service.batch(operations, actor=BENCH)


class Daemon:
    """A `ureg serve`. `took`: seconds from its start to `ready`; `at`: CPU seconds it had used by then."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.places = Places(home)
        self.port = free_port()
        log = home.with_name(home.name + ".stderr")
        began = time.perf_counter()
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "universal_registry", "serve"],
                env=environment(REGISTRY_HOME=str(home), REGISTRY_LISTEN=f"{HOST}:{self.port}", **settings),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        while b'"event":"ready"' not in (said := log.read_bytes()).replace(b'": "', b'":"'):
            if self.process.poll() is not None:
                raise NotHere(f"the daemon did not start: {said.decode(errors='replace')[-500:]}")
            time.sleep(0.001)
        self.took = time.perf_counter() - began
        self.client = Client(self.places.address.read_text().splitlines()[0])

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def token(self) -> str:
        return self.places.admin_token.read_text().strip()

    def add_target(self, url: str, select: str = f"kind={KIND}") -> None:
        """A signed target for all records of the kind."""
        asked = {"name": "sink", "url": url, "select": select, "network": "loopback"}
        self.client.request("POST", "/v1/-/targets", json=asked)


@contextlib.contextmanager
def daemon(home: Path, **settings: str) -> Iterator[Daemon]:
    """A daemon for the block."""
    started = Daemon(home, **settings)
    try:
        yield started
    finally:
        end(started.process)
