"""The webhook processor: starts what may be started, and settles what has finished in one commit."""

from __future__ import annotations

import asyncio

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.world import World
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Engine, Pulse

TICK, SHORTEST = 1.0, 0.01
REST = 0.1


class WebhookWorker:
    """Owner of the deliveries under way. `planning` rings when something has become due."""

    def __init__(self, engine: Engine, world: World, planning: Alarm) -> None:
        self.alarm = Alarm()
        self.running: set[asyncio.Task[None]] = set()
        self._engine, self._world, self._planning = engine, world, planning
        self._trouble, self._log = "", Log("webhook")
        self._is_open = False
        engine.on_wake(self.alarm.ring)
        engine.on_ready(self._ready)
        engine.on_news(self._log.warning)

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for; deliveries under way then go on, for `drain`."""
        pause = SHORTEST
        self._engine.let_rest(REST)
        try:
            while not pulse.ending():
                due = await self.turn()
                self._is_open = not self._trouble and not pulse.ending()
                pulse.beat()
                if await self.alarm.wait(max(due, pause)):
                    pause = SHORTEST
                else:
                    self._planning.ring()
                    # What is due and cannot be done yet must not keep us busy.
                    pause = min(TICK, 2 * pause) if due < pause else SHORTEST
        finally:
            self._is_open = False

    async def turn(self) -> float:
        """Settle what has finished and start what may be started. More is due in so many seconds."""
        # What cannot be written down must not be sent: after a restart it would be sent again.
        if not await self._settle():
            return TICK
        self._start()
        return min(TICK, self._engine.next_wake())

    async def drain(self, seconds: float) -> int:
        """Start none, and give those under way so long; then they are given up: how many. Their outcome is stored."""
        end = self._world.monotonic() + seconds
        while self.running and (left := end - self._world.monotonic()) > 0:
            await self.alarm.wait(min(left, TICK))
            await self._settle()
        given_up = [task for task in self.running if task.cancel()]
        await asyncio.gather(*given_up, return_exceptions=True)
        await self._settle(last=True)
        return len(given_up)

    def _ready(self) -> None:
        """Something was planned: it goes out at once, without a turn of its own."""
        if self._is_open:
            self._start()
        else:
            self.alarm.ring()

    def _start(self) -> None:
        for job in self._engine.take():
            task = asyncio.create_task(self._engine.run(job), name="delivery")
            self.running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("delivery failed by a fault of ours", error)
        self.alarm.ring()

    async def _settle(self, *, last: bool = False) -> bool:
        """Whether nothing is left to be written down."""
        try:
            if last:
                await self._engine.stop()
            elif self._engine.unsettled:
                await self._engine.settle()
            self._trouble = ""
        except StorageUnavailable as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("deliveries cannot be settled, so none are started", error)
            return False
        return True
