"""Propagation without a daemon: the engine runs in a command's own process until nothing is due."""

from __future__ import annotations

from universal_registry.kernel.world import World
from universal_registry.runner.ports import Alarm, Engine
from universal_registry.runner.workers.webhook import WebhookWorker


class Driver:
    """Runs the engine of a store that this process owns."""

    def __init__(self, engine: Engine, world: World) -> None:
        self._engine = engine
        self._world = world
        self._worker = WebhookWorker(engine, world, planning=Alarm())
        engine.on_plan(self._worker.alarm.ring)
        self._is_started = False

    async def run(self, seconds: float) -> bool:
        """Plan what the log holds, and try what is due once. False when time ran out before all attempts had ended.

        What failed waits for its next attempt, and is tried again by a later run or by the next daemon.
        """
        if not self._is_started:
            await self._engine.start()
            self._is_started = True
        until = self._world.monotonic() + seconds
        while (left := until - self._world.monotonic()) > 0:
            while await self._engine.plan():
                await self._worker.turn()
            await self._worker.turn()
            if self._engine.idle and not self._worker.running:
                return True
            await self._worker.alarm.wait(min(left, 1.0))
        return False

    async def stop(self) -> None:
        """Give up what is under way, and store the rest."""
        if self._is_started:
            await self._worker.drain(0.0)
