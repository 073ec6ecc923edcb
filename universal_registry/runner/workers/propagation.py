"""The propagation processor: reads on in the log after each commit, and once a second in case a wake-up was missed."""

from __future__ import annotations

import asyncio

from universal_registry.runner.ports import Alarm, Engine, Pulse

TICK = 1.0


class PropagationWorker:
    """Its alarm rings after each commit of the registry."""

    def __init__(self, engine: Engine) -> None:
        self.alarm = Alarm()
        self._engine = engine
        engine.on_plan(self.alarm.ring)

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        while not pulse.ending():
            while not pulse.ending() and await self._engine.plan():
                pulse.beat()
                await asyncio.sleep(0)  # a long way to catch up is no reason to keep requests and deliveries waiting
            pulse.beat()
            await self.alarm.wait(TICK)
