"""Several daemons on one database: each hears of the others' commits, and looks once a second in case it did not."""

from __future__ import annotations

from universal_registry.runner.ports import Alarm, Others, Pulse

TICK = 1.0


class WatchWorker:
    """Its alarm rings only for the end."""

    def __init__(self, others: Others) -> None:
        self.alarm = Alarm()
        self._others = others

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        try:
            while not pulse.ending():
                pulse.beat()
                await self._others.look()
                pulse.beat()
                await self.alarm.wait(TICK)
        finally:
            await self._others.close()
