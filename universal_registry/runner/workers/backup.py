"""Makes backups by the clock, beside everything else."""

from __future__ import annotations

import asyncio

from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.world import World
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Backups, Pulse

TICK = 1.0
AGAIN_SECONDS = 60.0


class BackupWorker:
    """A failure is logged once, and tried again. A backup may take minutes: the worker shows meanwhile that it lives,
    and gives it up when the end is asked for."""

    def __init__(self, backups: Backups, world: World) -> None:
        self._backups = backups
        self._world = world
        self._trouble = ""
        self.alarm = Alarm()
        self._log = Log("backup")
        backups.on_news(self._log.info)

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        due = self._world.monotonic()
        while not pulse.ending():
            pulse.beat()
            if self._world.monotonic() >= due:
                due = self._world.monotonic() + await self._tick(pulse)
            await self.alarm.wait(min(TICK, max(0.0, due - self._world.monotonic())))

    async def _tick(self, pulse: Pulse) -> float:
        task = asyncio.create_task(self._backups.tick())
        try:
            while not task.done() and not pulse.ending():
                pulse.beat()
                await asyncio.wait([task], timeout=TICK)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            return AGAIN_SECONDS
        try:
            pause = task.result()
        except RegistryError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("no backup was made: it is tried again", error)
            return AGAIN_SECONDS
        self._trouble = ""
        return pause
