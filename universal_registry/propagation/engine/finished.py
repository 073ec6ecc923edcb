"""Attempts that have ended and are not stored yet. One that tells nothing new may rest for a moment, so that one commit
stores several; whatever else is stored takes it along."""

from __future__ import annotations

from collections import deque

from universal_registry.kernel.world import World
from universal_registry.log.change import Op
from universal_registry.propagation.engine.jobs import Job
from universal_registry.propagation.lanes.lane import Breaker
from universal_registry.propagation.lanes.outcome import Accepted, Outcome


class Finished:
    """`rest`: for how many seconds one may wait; 0: none does. Each counts as under way for its target until it is
    stored, so that after a kill no more is sent again than could be under way."""

    def __init__(self, world: World) -> None:
        self.rest = 0.0
        self._world = world
        self._waiting: deque[tuple[Job, Outcome]] = deque()
        self._due_at = float("inf")

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def due_in(self) -> float:
        """Seconds until they are to be stored; infinite when there are none."""
        return max(0.0, self._due_at - self._world.monotonic())

    def add(self, job: Job, outcome: Outcome, limit: int) -> None:
        """`limit`: of attempts under way to the target, or at all. Where one rests at least half of them are free."""
        self._waiting.append((job, outcome))
        roomy = 2 * max(len(job.run.flight), len(self._waiting)) < limit
        rest = self.rest if roomy and _tells_nothing(job, outcome) else 0.0
        self._due_at = min(self._due_at, self._world.monotonic() + rest)

    def hurry(self) -> None:
        """Somebody waits for them."""
        if self._waiting:
            self._due_at = float("-inf")

    def popleft(self) -> tuple[Job, Outcome]:
        """The oldest, to be stored now."""
        found = self._waiting.popleft()
        if not self._waiting:
            self._due_at = float("inf")
        return found


def _tells_nothing(job: Job, outcome: Outcome) -> bool:
    """Whether a change was taken at its first attempt by a target that is well and has nothing more to get: all there
    is to store is that its lane is one further. Of events, people wait to hear."""
    lane = job.run.lane
    well = lane.breaker is Breaker.CLOSED and not (lane.failures or lane.guard.ramp or lane.rows)
    done = isinstance(outcome, Accepted) and job.fresh is not None and job.delivery.op != Op.EVENT
    return done and well and not (job.run.ready or job.run.rows)
