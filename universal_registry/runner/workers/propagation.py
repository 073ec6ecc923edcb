"""The propagation processor: reads on in the log after each commit, and once a second in case a wake-up was missed."""

from __future__ import annotations

import asyncio

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Engine, Pulse

TICK = 1.0


class PropagationWorker:
    """Its alarm rings after each commit of the registry."""

    def __init__(self, engine: Engine) -> None:
        self.alarm = Alarm()
        self._engine = engine
        self._trouble, self._log = "", Log("propagation")
        engine.on_plan(self.alarm.ring)

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        while not pulse.ending():
            while not pulse.ending() and await self._plan():
                pulse.beat()
                await asyncio.sleep(0)  # a long way to catch up is no reason to keep requests and deliveries waiting
            pulse.beat()
            await self.alarm.wait(TICK)

    async def _plan(self) -> bool:
        """Whether there is more at once. A database that is away is waited for."""
        try:
            more = await self._engine.plan()
        except StorageUnavailable as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("the log cannot be read on", error)
            return False
        self._trouble = ""
        return more
