"""Keeps the workers running: each has one owner, a dead one is logged and started again, a stuck one is reported."""

from __future__ import annotations

import asyncio

from universal_registry.kernel.world import World
from universal_registry.observe.health import WorkerState
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Pulse, Worker

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
GIVE_UP = 120.0
"""Seconds of silence after which a worker is cancelled and started again: longer than any deadline of its own."""

CALM = 60.0
"""A worker that ran so many seconds has recovered: its next death counts as the first."""


class _Watched:
    """One worker: its task and what has become of it."""

    def __init__(self, name: str, worker: Worker, world: World) -> None:
        self.name = name
        self.worker = worker
        self.pulse = Pulse(world)
        self.task: asyncio.Task[None] | None = None
        self.life: asyncio.Task[None] | None = None
        self.running = True
        self.deaths = 0
        self.streak = 0
        self.last_error = ""
        self.said_stuck = False


class Supervisor:
    """Owner of all workers' tasks. `stuck_after`: seconds of silence that are too long."""

    def __init__(self, world: World, *, stuck_after: float = 30.0) -> None:
        self._world = world
        self._stuck_after = stuck_after
        self._workers: dict[str, _Watched] = {}
        self._watch: asyncio.Task[None] | None = None
        self._log = Log("supervisor")

    def start(self, name: str, worker: Worker) -> None:
        """Run a worker from now on, until `stop`."""
        watched = self._workers[name] = _Watched(name, worker, self._world)
        watched.task = asyncio.create_task(self._keep(watched), name=name)
        if self._watch is None:
            self._watch = asyncio.create_task(self._report_stuck(), name="supervisor")

    async def stop(self, grace: float) -> list[str]:
        """Ask all workers to end, and cancel those that have not after `grace` seconds: their names."""
        tasks = {each.task: each for each in self._workers.values() if each.task is not None}
        for each in tasks.values():
            each.pulse.end()
            each.worker.alarm.ring()
        late: set[asyncio.Task[None]] = set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
        ending = [*late, *([self._watch] if self._watch else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._workers.clear()
        self._watch = None
        return [tasks[task].name for task in late]

    def states(self) -> list[WorkerState]:
        """All workers, for health."""
        return [
            WorkerState(
                name=each.name,
                running=each.running,
                stuck=each.running and each.pulse.silent > self._stuck_after,
                deaths=each.deaths,
                silent=round(each.pulse.silent, 3),
                last_error=each.last_error,
            )
            for each in self._workers.values()
        ]

    def at_work(self, names: tuple[str, ...]) -> bool:
        """Whether each of these has shown, not too long ago, that it is at work."""
        found = [self._workers[name] for name in names if name in self._workers]
        return len(found) == len(names) and all(
            each.running and each.pulse.alive and each.pulse.silent <= self._stuck_after for each in found
        )

    def trouble(self) -> str:
        """Which worker is dead or stuck, in words; empty when all is well."""
        for state in self.states():
            if not state.running:
                return f"the {state.name} worker died and is being started again: {state.last_error}"
            if state.stuck:
                return f"the {state.name} worker has not moved for {state.silent:.0f} s"
        return ""

    async def _keep(self, watched: _Watched) -> None:
        while not watched.pulse.ending():
            began = self._world.monotonic()
            watched.running = True
            watched.pulse.begin()
            watched.last_error = await self._live(watched)
            if watched.pulse.ending():
                return
            watched.running = False
            watched.deaths += 1
            watched.streak = 1 if self._world.monotonic() - began >= CALM else watched.streak + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(watched.streak - 1, 16))
            await self._pause(watched, pause)
            self._log.info("worker restarted", worker=watched.name, deaths=watched.deaths, after_seconds=pause)

    async def _live(self, watched: _Watched) -> str:
        """One life of a worker, from its start to whatever ends it, in words."""
        life = watched.life = asyncio.create_task(watched.worker.run(watched.pulse), name=f"{watched.name}-life")
        try:
            await asyncio.wait([life])
        except asyncio.CancelledError:  # the supervisor stops, and waits no longer
            life.cancel()
            await asyncio.wait([life])
            raise
        if life.cancelled():
            self._log.error("worker cancelled: it was stuck", worker=watched.name)
            return f"it was stuck for {watched.pulse.silent:.0f} s"
        if (error := life.exception()) is not None:
            self._log.error("worker died", error, worker=watched.name)
            return f"{type(error).__name__}: {error}"
        if not watched.pulse.ending():
            self._log.error("worker ended", worker=watched.name)
        return "it returned"

    async def _report_stuck(self) -> None:
        while True:
            await asyncio.sleep(self._stuck_after / 4)
            for each in self._workers.values():
                stuck = each.running and each.pulse.silent > self._stuck_after
                if stuck and not each.said_stuck:
                    self._log.error("worker stuck", worker=each.name, silent_seconds=round(each.pulse.silent, 1))
                each.said_stuck = stuck
                if stuck and each.pulse.silent > GIVE_UP and each.life is not None:
                    each.life.cancel()

    async def _pause(self, watched: _Watched, seconds: float) -> None:
        """Other rings than the one for the end do not shorten it."""
        until = self._world.monotonic() + seconds
        while not watched.pulse.ending() and (left := until - self._world.monotonic()) > 0:
            await watched.worker.alarm.wait(left)
