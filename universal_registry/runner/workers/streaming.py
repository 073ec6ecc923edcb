"""The streaming processor: it hands out what is new to the open streams, and every three seconds it stores what they
have carried since."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.world import World
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Pulse, Streams

EVERY = 3.0
TICK = 1.0


class StreamingWorker:
    """Its alarm rings for the end, and by `on_commit`, to be called after each commit that the streams know of."""

    def __init__(self, streams: Streams | None, world: World) -> None:
        self.alarm = Alarm()
        self._streams = streams
        self._world = world
        self._troubles: dict[str, str] = {}
        self._log = Log("streaming")

    def on_commit(self) -> None:
        """Most is handed out by then: nobody is woken for nothing."""
        if self._streams is not None and self._streams.is_behind:
            self.alarm.ring()

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for; what was carried until then is stored."""
        due = self._world.monotonic() + EVERY
        while not pulse.ending():
            if self._streams is not None:
                await self._tried("streams cannot be told what is new", self._streams.pump)
                if self._world.monotonic() >= due:
                    due = self._world.monotonic() + EVERY
                    await self._tried("stream metrics cannot be stored", self._streams.store_traffic)
            pulse.beat()
            await self.alarm.wait(TICK)
        if self._streams is not None:
            await self._tried("stream metrics cannot be stored", self._streams.store_traffic)

    async def _tried(self, trouble: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do it. What a database that is gone prevents is forgotten by nobody: it is done when that is back."""
        try:
            await work()
            self._troubles.pop(trouble, None)
        except RegistryError as error:
            if str(error) != self._troubles.get(trouble):
                self._troubles[trouble] = str(error)
                self._log.error(trouble, error)
