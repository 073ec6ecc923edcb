"""Which attempts may start now: lanes take turns, within every limit. It knows what is under way, and does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.propagation.engine.jobs import Job, Judge
from universal_registry.propagation.engine.stirred import Stirred
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.breaker import begin_probe, may_send, probe_due
from universal_registry.propagation.lanes.fairness import Slots, Standing, Turns, of_attempt, standing
from universal_registry.propagation.lanes.lane import Order
from universal_registry.propagation.lanes.retry_budget import may_retry, retry_at
from universal_registry.propagation.lanes.settle import Terms
from universal_registry.propagation.lanes.token_bucket import Flow, changed, enough_at, has_enough
from universal_registry.propagation.routing.target_traffic import AtFault

_REST_SECONDS = 1.0


class Dispatcher:
    """Hands out attempts for the lanes `runs`. Each must be ended, once. `passed`: those that had something when
    attempts were last taken, and could start nothing of it."""

    def __init__(self, world: World, settings: Settings, runs: Mapping[str, LaneRun], stirred: Stirred) -> None:
        self.settings = settings
        self._world = world
        self._runs = runs
        self._stirred = stirred
        self.passed: list[LaneRun] = []
        self._slots = Slots()
        self._turns: Turns[LaneRun] = Turns()
        self._taken_at = world.now()
        self._rest_until = float("-inf")

    @property
    def under_way(self) -> int:
        """How many attempts are."""
        return self._slots.used

    def limit(self, run: LaneRun) -> int:
        """How many attempts may be under way to the lane's target now."""
        if run.lane.order is Order.STRICT:
            return 1
        most = run.target.in_flight or self.settings.max_in_flight_per_target
        return min(most, run.lane.guard.ramp) if run.lane.guard.ramp else most

    def terms(self, run: LaneRun) -> Terms:
        """What holds for what is sent to the lane's target."""
        return Terms(
            retry=self.settings.retry,
            in_flight=run.target.in_flight or self.settings.max_in_flight_per_target,
            retry_rejected=run.target.traffic.rejected is AtFault.RETRY,
        )

    def take(self, ended: int) -> list[Job]:
        """Attempts that may start now. `ended`: how many have ended and are not stored yet; they count as under way,
        since a dead daemon's successor makes them again."""
        now = self._taken_at = self._world.now()
        if self._world.monotonic() < self._rest_until:
            return []
        self._line_up([*self.passed, *self._stirred.sendable])
        self._stirred.sendable.clear()
        most = self.settings.max_in_flight
        jobs: list[Job] = []

        def start(run: LaneRun) -> bool:
            job = self._next(run, now)
            if job is not None:
                jobs.append(job)
            return job is not None

        def room(kind: Standing) -> bool:
            return self._slots.used + ended < most and self._slots.admits(kind, most)

        self.passed = [run for run in self._turns.share(start, room) if self._waits(run)]
        return jobs

    def _line_up(self, runs: Iterable[LaneRun]) -> None:
        for run in runs:
            if self._waits(run):
                self._turns.join(run, standing(run.lane, self._oldest(run)))

    def _waits(self, run: LaneRun) -> bool:
        has_some = (run.due or run.ready) and not run.handed_over
        return bool(has_some) and self._runs.get(run.lane.lane_id) is run

    def put_back(self, job: Job, judged: Judge) -> None:
        """The attempt could not be made, since the stores did not answer; none is begun for a moment."""
        job.run.put_back(job)
        job.run.recall(judged)
        self._rest_until = self._world.monotonic() + _REST_SECONDS

    def end(self, job: Job) -> None:
        """The attempt is no longer under way."""
        self._slots.end(job.standing)

    # --- one lane ---------------------------------------------------------------------------------------------------

    def _next(self, run: LaneRun, now: datetime) -> Job | None:
        if run.target.held or not self._waits(run):
            return None
        if not may_send(run.lane, now):
            probe = False
            if len(run.flight) + run.storing >= self.limit(run):
                return None
        elif run.flight or not probe_due(run.lane, now):
            return None
        else:
            probe = True
        flow = run.target.traffic.flow
        if flow is not None and not has_enough(run.lane.guard.rate, flow, now):
            return None
        return self._begin(run, now, probe, flow)

    def _begin(self, run: LaneRun, now: datetime, probe: bool, flow: Flow | None) -> Job | None:
        target = standing(run.lane, self._oldest(run))
        if not self._slots.admits(target, self.settings.max_in_flight):
            return None
        retries = not run.due or self._admits_retry(run, target, now, probe)
        job = run.next_job(probe=probe, retries=retries)
        if job is None:
            return None
        job.standing, job.since = of_attempt(target, job.delivery.attempts), self._world.monotonic()
        self._slots.begin(job.standing)
        if flow is not None:
            guard = run.lane.guard
            run.lane = replace(run.lane, guard=replace(guard, rate=changed(guard.rate, flow, now, -1.0)))
        if probe:
            lost_at = now + timedelta(seconds=2 * (run.target.timeout or self.settings.retry.timeout_seconds))
            run.lane = begin_probe(run.lane, lost_at)
        return job

    def _admits_retry(self, run: LaneRun, target: Standing, now: datetime, probe: bool) -> bool:
        """Whether what failed before may be tried now. A probe is one attempt in a long time, whichever it is."""
        if not self._slots.admits(of_attempt(target, 1), self.settings.max_in_flight):
            return False
        retries = sum(job.delivery.attempts > 0 for job in run.flight.values())
        return probe or may_retry(run.lane.guard, self.settings.retry, now, retries)

    def _oldest(self, run: LaneRun) -> float:
        if not run.flight:
            return 0.0
        return self._world.monotonic() - next(iter(run.flight.values())).since  # the others began later

    # --- when to look again -----------------------------------------------------------------------------------------

    def next_times(self) -> list[datetime]:
        """Moments at which something may start that could not when attempts were last taken. One may have passed since:
        as of now it would be no moment to wait for, and nobody would look again."""
        now = self._taken_at
        times: list[datetime] = []
        for run in dict.fromkeys([*self.passed, *self._stirred.rowed]):
            times += [each for each in (run.lane.open_until, run.lane.pause_until) if each is not None and each > now]
            flow, guard = run.target.traffic.flow, run.lane.guard
            if flow is not None and guard.rate is not None and (run.due or run.ready):
                times.append(enough_at(guard.rate, flow, now))
            if guard.budget is not None and run.rows:
                times.append(retry_at(guard, self.settings.retry, now))
        return [each for each in times if each > now]
