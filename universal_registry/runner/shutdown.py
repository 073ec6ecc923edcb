"""What signals mean: SIGTERM and SIGINT drain, a second one exits at once, SIGHUP reopens logs and rereads settings."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from universal_registry.observe.logs import Log

STOPPING = (signal.SIGTERM, signal.SIGINT)
EXIT_AT_ONCE = 1


class Signals:
    """The signals of a running daemon. `reload` is called for SIGHUP and must not raise."""

    def __init__(self, reload: Callable[[], None]) -> None:
        self._reload = reload
        self._stop = asyncio.Event()
        self._log = Log("runner")
        self.received = ""

    def install(self) -> None:
        """From now on signals come here; also those that a shell ignores on behalf of what it starts with `&`."""
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    async def stopped(self) -> str:
        """Wait for the first signal to stop: its name."""
        await self._stop.wait()
        return self.received

    def _on_stop(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stop.is_set():
            # Nothing acknowledged is lost: this is what a kill -9 does, and the store is made for that.
            self._log.warning("second signal: exiting at once", signal=name)
            os._exit(EXIT_AT_ONCE)
        self.received = name
        self._stop.set()


def outlive_the_terminal() -> None:
    """A daemon started with `&` gets SIGHUP when its shell goes. Until `install` nothing else is to be done for it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
