"""What the runner needs of the parts it runs. It holds no rule of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.observe.metrics import Gauges

DAEMON = "daemon"
"""The role under which a daemon holds the lock of its store."""

Job = Any
"""What the engine hands out and gets back: the runner does not look inside."""


class Engine(Protocol):
    """The propagation engine: it decides what is sent, and when; the runner lends it time."""

    @property
    def unsettled(self) -> bool:
        """Whether finished deliveries wait for `settle`."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Store what is finished, give back what was not sent."""
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing is left that could be done now."""
        ...

    async def plan(self) -> bool:
        """Read on in the log. True: there is more."""
        ...

    def take(self) -> Sequence[Job]:
        """Deliveries that may be started now; each must be run."""
        ...

    async def run(self, job: Job) -> None:
        """Send one. Never raises for what a target does."""
        ...

    async def settle(self) -> None:
        """Commit everything that finished since, in one go."""
        ...

    def next_wake(self) -> float:
        """Seconds until something is due."""
        ...

    def on_news(self, callback: Callable[..., None]) -> None:
        """Call this with an event's name and fields when something happened that somebody may have to look at."""
        ...

    def on_plan(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to plan that no commit announces."""
        ...

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to take."""
        ...


class Addresses(Protocol):
    """Where a server listens."""

    def lines(self) -> str:
        """The text of `run/address`: the socket's path, then HOST:PORT."""
        ...


class Server(Protocol):
    """What accepts connections."""

    async def start(self) -> Addresses:
        """Begin to accept. Raises Conflict if an address is taken."""
        ...

    async def stop(self, grace: float) -> None:
        """Accept nothing new, give what is under way `grace` seconds, then end it."""
        ...


class Others(Protocol):
    """Whoever else writes the same database."""

    async def look(self) -> None:
        """See whether they did; then `on_commit` callbacks are called. Never raises for a database that is gone."""
        ...

    async def close(self) -> None: ...


class Service(Protocol):
    """What the daemon needs of an opened registry; the composition root makes it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def server(self) -> Server: ...

    @property
    def others(self) -> Others | None:
        """None where the store has one owner."""
        ...

    def on_commit(self, callback: Callable[[], None]) -> None: ...

    async def revision(self) -> int:
        """The head's, for the log."""
        ...

    async def gauges(self) -> Gauges:
        """For the metrics file. Raises StorageUnavailable, Corrupt."""
        ...

    async def check(self) -> str:
        """The health check: "ok", or what is wrong. Never raises for a database that is gone."""
        ...

    def apply(self, settings: Settings) -> None:
        """Take over settings that were read again."""
        ...

    async def close(self) -> None: ...


class Alarm:
    """A wake-up: it carries nothing. Any number of rings before a wait are one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Until it rings (True), or for so long (False). Others get their turn even when it has rung already."""
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Pulse:
    """Between a worker and its supervisor: the worker beats, the supervisor says when to end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._beat_at = world.monotonic()
        self._ending = False

    def ending(self) -> bool:
        """Whether the worker is to return."""
        return self._ending

    def end(self) -> None:
        """Ask it to."""
        self._ending = True

    def beat(self) -> None:
        """Show that the worker is not stuck: at least every second or two."""
        self._beat_at = self._world.monotonic()

    @property
    def silent(self) -> float:
        """Seconds since the last beat."""
        return self._world.monotonic() - self._beat_at


class Worker(Protocol):
    """Runs until its pulse is `ending`, for which its alarm rings. It is not cancelled in the middle of a commit."""

    alarm: Alarm

    async def run(self, pulse: Pulse) -> None: ...
