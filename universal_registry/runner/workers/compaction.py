"""Keeps the change log short, step by step, beside whoever writes."""

from __future__ import annotations

from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.world import World
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Compaction, Pulse

TICK = 1.0
AGAIN_SECONDS = 60.0


class CompactionWorker:
    """A failure is logged once, and tried again. Its alarm rings only for the end."""

    def __init__(self, compaction: Compaction, world: World) -> None:
        self._compaction = compaction
        self._world = world
        self._trouble = ""
        self.alarm = Alarm()
        self._log = Log("compaction")
        compaction.on_news(self._log.info)

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        due = self._world.monotonic()
        while not pulse.ending():
            pulse.beat()
            if self._world.monotonic() >= due:
                pause = await self._tick()
                due = self._world.monotonic() + pause
            await self.alarm.wait(min(TICK, max(0.0, due - self._world.monotonic())))

    async def _tick(self) -> float:
        try:
            pause = await self._compaction.tick()
        except RegistryError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("the change log is not compacted now: it is tried again", error)
            return AGAIN_SECONDS
        self._trouble = ""
        return pause
