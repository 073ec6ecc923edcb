"""Does what there is to do about keys: the rotation that is due, and batch by batch the one under way."""

from __future__ import annotations

from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.world import World
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Keys, Pulse

TICK = 1.0
AGAIN_SECONDS = 5.0


class KeysWorker:
    """A failure is logged once, and tried again: whatever it was, the next tick goes on from what is stored."""

    def __init__(self, keys: Keys, world: World) -> None:
        self._keys = keys
        self._world = world
        self._trouble = ""
        self.alarm = Alarm()
        self._log = Log("keys")
        keys.on_work(self.alarm.ring)
        keys.on_news(self._log.info)

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        due = self._world.monotonic()
        while not pulse.ending():
            pulse.beat()
            if self._world.monotonic() >= due:
                due = self._world.monotonic() + await self._tick()
            if await self.alarm.wait(min(TICK, max(0.0, due - self._world.monotonic()))):
                due = self._world.monotonic()

    async def _tick(self) -> float:
        try:
            pause = await self._keys.tick()
        except RegistryError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("keys: it is tried again", error)
            return AGAIN_SECONDS
        self._trouble = ""
        return pause
