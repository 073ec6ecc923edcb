"""What the runner needs of the parts it runs. It holds no rule of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.observe.health import WorkerState
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

    def let_rest(self, seconds: float) -> None:
        """What ended as expected may wait so long for `settle`."""
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
        """Call this when there may be something to settle, and then to take."""
        ...

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to take that waits for no settling."""
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


class Streams(Protocol):
    """The open streams."""

    @property
    def is_behind(self) -> bool:
        """Whether something was committed that was not handed out there and then: `pump` does it."""
        ...

    async def pump(self) -> None:
        """Hand out what is new. Raises StorageUnavailable, Corrupt: it is handed out the next time."""
        ...

    async def store_traffic(self) -> None:
        """Add what they have carried since the last time to the stream metrics. Raises StorageUnavailable: nothing is
        forgotten then."""
        ...


class Keys(Protocol):
    """The keys that values are sealed with."""

    async def tick(self) -> float:
        """Do one piece of what there is to do. Seconds until the next; 0: at once."""
        ...

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call this when there is work for `tick`."""
        ...

    def on_news(self, news: Callable[..., None]) -> None:
        """Call this with an event's name and fields when something happened to a key."""
        ...


class Compaction(Protocol):
    """What keeps the change log short."""

    async def tick(self) -> float:
        """Do one step of what there is to do. Seconds until the next. Raises what the store raises."""
        ...

    def on_news(self, news: Callable[..., None]) -> None:
        """Call this with an event's name and fields when something was compacted."""
        ...


class Backups(Protocol):
    """What makes backups by the clock."""

    async def tick(self) -> float:
        """Make the one that is due. Seconds until the next look. May take minutes. Raises what the store raises."""
        ...

    def on_news(self, news: Callable[..., None]) -> None:
        """Call this with an event's name and fields when one was made."""
        ...


class Peers(Protocol):
    """The links with other registries."""

    news: Callable[..., None]
    """Called with an event's name and fields when something happened that somebody may have to look at."""

    @property
    def why_renewed(self) -> str:
        """Why this registry took a new name for its peers when it was opened; empty: it did not."""
        ...

    async def to_dial(self) -> Mapping[str, Job]:
        """By node, the peers that this process is to connect to. Tends the links meanwhile. Raises what the store
        raises."""
        ...

    async def woken(self) -> None:
        """Something was committed. Raises what the store raises."""
        ...

    async def dial(self, peer: Job) -> Job:
        """Connect: a link that is to be carried. Raises RegistryError."""
        ...

    def hung_up(self, link: Job, reason: str) -> bool:
        """It is over. Whether it was refused, for a reason that does not pass by itself."""
        ...

    def failed(self, node: str, reason: str) -> Job:
        """It could not be connected to."""
        ...

    async def purge(self) -> int:
        """Drop what nobody needs any more. Raises what the store raises."""
        ...

    def part(self) -> None:
        """Say goodbye to all, so that nobody is waited for."""
        ...


class Duty(Protocol):
    """What health asks of the daemon."""

    def unready(self) -> str:
        """Why it does not do its whole work, in words; empty when it does."""
        ...

    def workers(self) -> Sequence[WorkerState]: ...


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

    @property
    def keys(self) -> Keys: ...

    @property
    def compaction(self) -> Compaction: ...

    @property
    def backups(self) -> Backups: ...

    @property
    def peers(self) -> Peers: ...

    @property
    def streams(self) -> Streams | None:
        """None while there are none."""
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

    async def every_second(self, *, last: bool = False) -> None:
        """What is to be done all the time: take over changes of tokens, write denials down (at the `last`, all of
        them). Raises StorageUnavailable: it is done the next time."""
        ...

    async def anchor(self) -> str:
        """The ends of the hash chains, for the log. Raises StorageUnavailable."""
        ...

    def apply(self, settings: Settings) -> None:
        """Take over settings that were read again."""
        ...

    async def close(self) -> None: ...


class Alarm:
    """A wake-up: it carries nothing. Any number of rings before a wait are one."""

    def __init__(self) -> None:
        self._rang = False
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake whoever waits."""
        self._rang = True
        if self._waiting is not None:
            _wake(self._waiting)

    async def wait(self, seconds: float) -> bool:
        """Until it rings (True), or for so long (False): one waits at a time. Others get their turn even when it has
        rung already."""
        if self._rang or seconds <= 0:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(seconds, _wake, self._waiting)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        rang, self._rang = self._rang, False
        return rang


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class Pulse:
    """Between a worker and its supervisor: the worker beats, the supervisor says when to end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._beat_at = world.monotonic()
        self._ending = False
        self.alive = False
        """Whether the worker has beaten since its life began."""

    def begin(self) -> None:
        """A life begins: the time that it may take for its first beat runs from now."""
        self._beat_at = self._world.monotonic()
        self.alive = False

    def ending(self) -> bool:
        """Whether the worker is to return."""
        return self._ending

    def end(self) -> None:
        """Ask it to."""
        self._ending = True

    def beat(self) -> None:
        """Show that the worker is not stuck: at least every second or two."""
        self._beat_at = self._world.monotonic()
        self.alive = True

    @property
    def silent(self) -> float:
        """Seconds since the last beat."""
        return self._world.monotonic() - self._beat_at


class Worker(Protocol):
    """Runs until its pulse is `ending`, for which its alarm rings. It is not cancelled in the middle of a commit."""

    alarm: Alarm

    async def run(self, pulse: Pulse) -> None: ...
