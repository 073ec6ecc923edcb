"""The propagation engine: plans windows of the log, hands out attempts, settles what came of them.

It holds what is under way in memory and nothing that would be missed: after a kill, the log, the lanes' positions and
the rows say all. The runner lends it time: `plan` after each wake-up, `take` and `run` for attempts, `settle` for the
one commit of each tick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import Settings
from universal_registry.propagation.engine.claims import Claims
from universal_registry.propagation.engine.clock_steps import ClockSteps
from universal_registry.propagation.engine.commits import Commits
from universal_registry.propagation.engine.dispatcher import Dispatcher
from universal_registry.propagation.engine.finished import Finished
from universal_registry.propagation.engine.jobs import Job
from universal_registry.propagation.engine.lane_commands import Obedience
from universal_registry.propagation.engine.outbox import Outbox
from universal_registry.propagation.engine.planner import AT_ONCE, Planner
from universal_registry.propagation.engine.roster import Roster
from universal_registry.propagation.engine.session_states import Progress
from universal_registry.propagation.engine.session_steps import Conduct
from universal_registry.propagation.engine.window import WAITS, LaneRun
from universal_registry.propagation.lanes.lane import Position
from universal_registry.propagation.lanes.outcome import Failed, Outcome
from universal_registry.propagation.lanes.settle import arrival, news, settle
from universal_registry.propagation.ports import PropagationStore, Transport
from universal_registry.propagation.routing.topology import Topology
from universal_registry.propagation.sending.attempt import Sender
from universal_registry.propagation.sending.event_gaps import gap_before
from universal_registry.propagation.sending.packer import Packer
from universal_registry.registry.service import RegistryService

TICK = 1.0
_FLUSH_SECONDS = 5.0
_FLUSHED_A_SECOND = 200  # lanes that have nothing to do and move all the same: many of them are stored less often
_LOOK_EVERY = timedelta(seconds=1)


class Engine:
    """One daemon's engine. Not safe for several loops; its methods interleave only at their awaits."""

    def __init__(
        self,
        service: RegistryService,
        store: PropagationStore,
        transports: Mapping[str, Transport],
        settings: Settings,
        *,
        shared: bool = False,
    ) -> None:
        """`shared`: other daemons may use the same stores; lanes are then held by leases."""
        self._service = service
        self._world = service.world
        self._store = store
        self._settings = settings
        self._commits = Commits(store)
        self._topology = Topology(service)
        packer = Packer(service.world, lambda: service.signing_key, settings)
        self._sender = Sender(service, self._topology.routes, transports, packer)
        self._progress = Progress(self._outbox, self._topology.gate)
        self._conduct = Conduct(service.world, store, self._topology.gate, self._progress)
        most_rows = settings.rows_per_lane
        self._roster = Roster(service, store, self._topology, self._outbox, shared=shared)
        self._runs = self._roster.runs
        self._stirred = self._roster.stirred
        alone = self._stirred.alone
        self._planner = Planner(service, store, self._topology, self._outbox, alone, most_rows, self._progress.planned)
        self._dispatch = Dispatcher(service.world, settings, self._runs, self._stirred)
        self._claims = Claims(store, self._dispatch, self._topology.gate, self._outbox)
        self._obedience = Obedience(service, store, self._runs, self._outbox)
        self._commits.holders = (self._progress, self._planner, self._roster, self._claims, self._obedience)
        self._finished = Finished(service.world)
        self._storing = 0
        self._followed = 0
        self._stale = False
        self._told = True
        self._looked_at = service.world.now()
        self._clock = ClockSteps(self._looked_at)
        self._head = 0
        self._incarnation = ""
        self._flushed_at = 0.0
        self._news: Callable[..., None] = _nothing
        self._wake: Callable[[], None] = _nothing
        self._ready: Callable[[], None] = _nothing
        self._wake_planner: Callable[[], None] = _nothing

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over the lanes, and load targets, routes and sessions."""
        now = self._world.now()
        lanes = await self._roster.claim()
        head = await self._service.log.head()
        self._incarnation = self._sender.incarnation = head.incarnation
        self._followed = head.revision
        await self._topology.load()
        sessions = await self._store.sessions()
        self._progress.load(sessions)
        self._conduct.start(sessions, now)
        await self._store.rebase(now)
        for lane in lanes:
            await self._roster.adopt(lane)
            self._conduct.gained(lane.lane_id)
        self._roster.after_clock_step(now, self._settings.retry, seen=False)
        self._flushed_at = self._world.monotonic()
        await self._refresh(now)
        await self._commit()

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to settle, and then to take."""
        self._wake = callback

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to take that waits for no settling."""
        self._ready = callback

    def on_news(self, callback: Callable[..., None]) -> None:
        """Call this with a name and fields when something happened that somebody may have to look at."""
        self._news = callback

    def on_plan(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to plan that no commit of the registry announces."""
        self._wake_planner = callback

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self._sender.packer.apply(settings)
        self._dispatch.settings = settings
        self._planner.rows_per_lane = settings.rows_per_lane

    def let_rest(self, seconds: float) -> None:
        """What ended as expected may wait so long to be stored together with others."""
        self._finished.rest = seconds

    async def stop(self) -> None:
        """Store what is finished, and give back the rows that were claimed and not sent, and the lanes."""
        self._flushed_at = float("-inf")
        await self.settle()  # may claim too: what is under way below the furthest finished line gets its row here
        for run in self._runs.values():
            if run.claimed:
                self._outbox.rows(run.claimed.values())
                self._outbox.lane(run.lane)
        await self._commit()
        await self._roster.leave()

    # --- planning --------------------------------------------------------------------------------------------------

    async def plan(self) -> bool:
        """Follow the log and fill the windows. True: there is more to plan at once."""
        gained = await self._roster.claim() if self._roster.claim_due else ()
        self._head = (await self._service.log.head()).revision
        now = self._world.now()
        await self._follow()
        for lane in gained:
            await self._roster.adopt(lane)
            self._conduct.gained(lane.lane_id)
            self._stale = True
        if self._stale:
            await self._refresh(now)
        await self._look_up(now)
        more = await self._conduct.turn(self._runs, now)
        more |= await self._planner.plan(self._followed, self._incarnation)
        await self._claims.look(self._stirred.rowed, now)
        if self._planner.took_news():  # not for what could not be taken a moment ago: nobody would get to rest
            self._ready()
        if self._outbox or self._stirred.parked:
            self._wake()
        return more or self._roster.claim_due

    async def _look_up(self, now: datetime) -> None:
        """Has somebody told a lane something? Has the clock gone back?"""
        step = self._clock.look(now, self._commits.count, unstored=self._is_unstored)
        if step is not None and step.seconds:
            self._news("the clock went back", seconds=step.seconds)
        if step is not None:
            await self._store.rebase(now)
            self._roster.after_clock_step(now, self._settings.retry, seen=True)
        if self._told or not timedelta(0) <= now - self._looked_at < _LOOK_EVERY:
            self._told, self._looked_at = False, now
            if await self._obedience.obey(self._news):
                self._progress.lanes_moved(list(self._roster.by_address), self._roster.by_address, now)

    async def _follow(self) -> None:
        """Read what is new about targets and routes. When something about them changed, the lanes are stale."""
        while self._followed < self._head:
            lines = await self._service.log.changes(self._followed, AT_ONCE)
            if not lines:  # the log ends before the head that was seen: whoever plans next looks again
                return
            self._planner.offer(self._followed, lines)
            for change in lines:
                self._stale = self._topology.follow(change) or self._stale
                self._followed = change.revision

    async def _refresh(self, now: datetime) -> None:
        """Bring lanes and sessions in line with the targets and routes in force."""
        self._roster.refresh(await self._service.log.head())
        self._progress.routes(self._topology.routes.current().routes, self._topology.meant, now)
        self._progress.lanes_moved(list(self._roster.by_address), self._roster.by_address, now)
        self._stale = False

    # --- sending ---------------------------------------------------------------------------------------------------

    def take(self) -> list[Job]:
        """Attempts that may start now, within the limits; each must be run. Lanes take turns."""
        if self._commits.refused or not self._roster.holds:
            return []
        jobs = self._dispatch.take(len(self._finished) + self._storing)
        if self._finished and (self._dispatch.passed or self._topology.gate.chained):  # they wait for what rests
            self._finished.hurry()
            self._wake()
        return jobs

    async def run(self, job: Job) -> None:
        """Make one attempt. What the target does becomes an outcome; only a fault of our own is raised, after it has
        become one too. While the stores do not answer the attempt is still to be made."""
        outcome: Outcome | None = None
        try:
            change = job.fresh.change if job.fresh else None
            gap = await gap_before(self._store, job.run.lane, job.delivery)
            outcome = await self._sender.send(job.run.target, job.delivery, change, gap)
        except StorageUnavailable as error:
            self._dispatch.put_back(job, self._topology.gate.judged)
            self._news("a delivery cannot be read", target=job.run.target.address, reason=str(error))
        except Exception as error:
            outcome = Failed(reason=f"a fault of ours: {type(error).__name__}", status=None, milliseconds=0.0)
            raise
        finally:
            if outcome is not None:
                self._finished.add(job, outcome, self._dispatch.limit(job.run))
            self._dispatch.end(job)

    # --- settling --------------------------------------------------------------------------------------------------

    @property
    def unsettled(self) -> bool:
        """Whether a commit is due."""
        return self._finished.due_in <= 0 or bool(self._outbox or self._stirred.parked) or self._flush_due

    @property
    def _flush_due(self) -> bool:
        return self._world.monotonic() - self._flushed_at >= max(_FLUSH_SECONDS, len(self._runs) / _FLUSHED_A_SECOND)

    async def settle(self) -> None:
        """One commit of everything finished since the last. Raises StorageUnavailable: then nothing more is handed out,
        what is known stays in memory, and the next call tries again."""
        now = self._world.now()
        moved: list[LaneRun] = []
        self._storing = 0
        while self._finished:
            job, outcome = self._finished.popleft()
            if self._runs.get(job.run.lane.lane_id) is job.run:  # not of a lane that was dropped meanwhile
                self._settle_one(job.run, job, outcome, now)
                moved.append(job.run)
                job.run.storing += 1
                self._storing += 1
        moved += self._stirred.parked
        if self._flush_due:
            moved += [run for run in self._runs.values() if run.scanned.position != run.lane.position]
            self._flushed_at = self._world.monotonic()
            self._topology.forget_before(self._roster.oldest - 1, self._roster.backfills)
        runs = dict.fromkeys(moved)
        for run in runs:
            self._move(run, now)
        self._progress.lanes_moved([run.target.address for run in runs], self._roster.by_address, now)
        try:
            await self._commit()
        finally:
            self._storing = 0
            for run in runs:
                run.storing = 0

    def _settle_one(self, run: LaneRun, job: Job, outcome: Outcome, now: datetime) -> None:
        settled = settle(
            run.lane,
            job.delivery,
            outcome,
            self._dispatch.terms(run),
            now=now,
            chance=self._world.chance(),
            probe=job.probe,
        )
        for event, fields in news(run.lane, settled):
            self._news(event, target=run.target.address, **fields)
        run.lane = settled.lane
        if settled.delivery is None:
            self._outbox.arrived(arrival(run.lane, job.delivery, outcome, now))
            if job.fresh is None:
                self._outbox.delivered(job.delivery)
        # What failed of a session that is paused or ended meanwhile is not tried again.
        left = settled.delivery and self._topology.gate.judged(settled.delivery)
        run.finish(job, left)
        self._outbox.attempt(settled.attempt, settled.counters)

    def _move(self, run: LaneRun, now: datetime) -> None:
        """Let the lane's stored position follow; what cannot be sent meanwhile goes into rows."""
        if run.closed(now):
            run.park(run.ready, WAITS)
        mark, rows = run.commit_point()
        self._stirred.parked.pop(run, None)
        run.lane = replace(run.lane, position=mark.position, hash8=mark.hash8, backfill=mark.backfill)
        self._outbox.rows(rows)
        self._outbox.lane(run.lane)

    @property
    def _outbox(self) -> Outbox:
        return self._commits.outbox

    @property
    def _is_unstored(self) -> bool:
        return bool(self._outbox) or self._commits.under_way

    async def _commit(self) -> None:
        claims = [(run, run.claiming) for run in self._stirred.rowed if run.claiming]
        settlements = await self._commits.commit()
        if settlements is None:
            return
        self._roster.stored(settlements.lanes)
        self._conduct.stored(settlements)
        for run, rows in claims:
            run.claims_stored(rows, self._topology.gate.judged)
        for lane_id, delivery_id in settlements.removed:
            if lane_id in self._runs:
                self._runs[lane_id].leaving.discard(delivery_id)
        changed = {row.lane_id for row in settlements.upserts} | {lane_id for lane_id, _ in settlements.removed}
        for run in [self._runs[lane_id] for lane_id in changed if lane_id in self._runs]:
            run.rows_changed, run.row_version = True, run.row_version + 1  # what is being read of them is older
        stored = [self._runs[lane.lane_id] for lane in settlements.lanes if lane.lane_id in self._runs]
        if self._roster.claim_due or any(self._planner.may_go_on(run, self._followed) for run in stored):
            self._wake_planner()

    # --- what people ask -------------------------------------------------------------------------------------------

    def next_wake(self) -> float:
        """Seconds until something may be due, at most a tick."""
        now = self._world.now()
        times = self._dispatch.next_times()
        if self._claims.next_due is not None:
            times.append(self._claims.next_due)
        return max(0.0, min([TICK, self._finished.due_in, *((moment - now).total_seconds() for moment in times)]))

    def look(self) -> None:
        """There may be a command to obey."""
        self._told = True
        self._wake_planner()

    @property
    def planned(self) -> int:
        """Planned lines that are neither delivered nor in a row."""
        return sum(run.unfinished for run in self._runs.values())

    async def lag(self) -> int:
        """Those, and the lines that lanes have yet to look at."""
        return self.planned + await self._planner.unread(self._head)

    def under_way(self) -> dict[str, int]:
        """Lane id -> how many attempts of it are under way."""
        return {lane_id: len(run.flight) for lane_id, run in self._runs.items()}

    def positions(self) -> dict[str, Position]:
        """Lane id -> how far it has come, where that is further than what is stored."""
        if self._is_unstored:
            return {}
        return {
            lane_id: run.scanned.position
            for lane_id, run in self._runs.items()
            if not run.unfinished and not run.is_parked and run.scanned.backfill is None
        }

    @property
    def idle(self) -> bool:
        """Whether all that the log asks for is delivered or stands in a row that is not due, and is stored."""
        now = self._world.now()
        busy = self._finished or self._is_unstored or self._dispatch.under_way or self._conduct.busy
        head = max(self._head, self._followed)
        return not busy and all(
            run.is_quiet(now) and not (self._planner.has_room(run) and self._planner.lags(run, head))
            for run in self._runs.values()
        )


def _nothing(*_: object, **__: object) -> None:
    """Nobody listens yet."""
