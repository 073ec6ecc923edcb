"""The streaming processor: every three seconds it stores what the open streams have carried since.

Streams cannot be opened yet. Until they can, `traffic` is empty and nothing is written: the worker keeps its time, and
shows in health that it does.
"""

from __future__ import annotations

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.world import World
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Pulse, Streams

EVERY = 3.0
TICK = 1.0


class StreamingWorker:
    """Its alarm rings only for the end."""

    def __init__(self, streams: Streams | None, world: World) -> None:
        self.alarm = Alarm()
        self._streams = streams
        self._world = world
        self._trouble, self._log = "", Log("streaming")

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for; what was carried until then is stored."""
        due = self._world.monotonic() + EVERY
        while not pulse.ending():
            if (now := self._world.monotonic()) >= due:
                due = now + EVERY
                await self._store()
            pulse.beat()
            await self.alarm.wait(min(TICK, max(0.0, due - self._world.monotonic())))
        await self._store()

    async def _store(self) -> None:
        if self._streams is None:
            return
        try:
            await self._streams.store_traffic()
            self._trouble = ""
        except StorageUnavailable as error:  # it is counted on, and stored when the database is back
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("stream metrics cannot be stored", error)
