"""What tests of every folder may ask for."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

import memory
import pgserver


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[pgserver.Server]:
    """One PostgreSQL for the whole run (of one process); `database(name)` of it for each test."""
    try:
        server = pgserver.Server()
    except pgserver.NoServerHere as error:
        pytest.skip(str(error))
    pgserver.RUNNING.append(server)
    yield server
    pgserver.RUNNING.clear()
    server.close()


@pytest.fixture
def postgres(postgres_server: pgserver.Server) -> Iterator[pgserver.Server]:
    """That server, for a test which makes databases on it: they are dropped when it ends."""
    yield postgres_server
    postgres_server.drop()


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A module that says `BOTH_LOOPS = True` runs on the daemon's event loop, too."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if getattr(getattr(item, "module", None), "BOTH_LOOPS", False):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


def pytest_configure() -> None:
    """Folders of tests are in memory, unless the caller says where. Ctrl-C works in what tests start: a shell
    lets what it starts with `&` ignore it, and so would every program that a test starts."""
    if (folder := memory.folder()) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
