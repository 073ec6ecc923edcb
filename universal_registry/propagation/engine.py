"""The propagation engine: plans windows of the log, hands out attempts, settles what came of them.

It holds what is under way in memory and nothing that would be missed: after a kill, the log, the lanes' positions and
the rows say all. The runner lends it time: `plan` after each wake-up, `take` and `run` for attempts, `settle` for the
one commit of each tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.settings import Settings
from universal_registry.log.change import Change
from universal_registry.propagation.breaker import begin_probe, may_send, probe_due
from universal_registry.propagation.lane import Delivery, DeliveryState, Position
from universal_registry.propagation.outbox import Outbox
from universal_registry.propagation.outcome import Failed, Outcome
from universal_registry.propagation.plan import Planned, event_of
from universal_registry.propagation.planner import Planner
from universal_registry.propagation.ports import PropagationStore, Transport
from universal_registry.propagation.progress import Progress
from universal_registry.propagation.roster import Roster
from universal_registry.propagation.sender import Sender
from universal_registry.propagation.settle import news, settle
from universal_registry.propagation.topology import Topology
from universal_registry.propagation.window import Job, LaneRun
from universal_registry.registry.service import RegistryService

TICK = 1.0
_CLAIM_AT_ONCE = 64
_CLAIM_AHEAD = 4  # for each that can be under way: all of them are blamed when the daemon ends
_FLUSH_SECONDS = 5.0


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
        self._outbox = Outbox()
        self._committing = False
        self._refused = False
        self._topology = Topology(service)
        self._sender = Sender(service, self._topology.routes, transports, settings.retry.timeout_seconds)
        self._progress = Progress(self._outbox)
        self._planner = Planner(
            service, store, self._topology, self._outbox, settings.rows_per_lane, self._event_planned
        )
        self._roster = Roster(service, store, self._topology, self._outbox, shared=shared)
        self._runs = self._roster.runs
        self._finished: deque[tuple[Job, Outcome]] = deque()
        self._in_flight = 0
        self._turn = 0
        self._followed = 0
        self._stale = False
        self._head = 0
        self._incarnation = ""
        self._next_due: datetime | None = None
        self._flushed_at = 0.0
        self._news: Callable[..., None] = _nothing
        self._wake: Callable[[], None] = _nothing
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
        self._progress.load(await self._store.sessions())
        for lane in lanes:
            await self._roster.adopt(lane)
        self._flushed_at = self._world.monotonic()
        await self._refresh(now)
        await self._commit()

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to take or to settle."""
        self._wake = callback

    def on_news(self, callback: Callable[..., None]) -> None:
        """Call this with an event's name and fields when something happened that somebody may have to look at."""
        self._news = callback

    def on_plan(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to plan that no commit of the registry announces."""
        self._wake_planner = callback

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self._sender.timeout = settings.retry.timeout_seconds
        self._planner.rows_per_lane = settings.rows_per_lane

    async def stop(self) -> None:
        """Store what is finished, and give back the rows that were claimed and not sent, and the lanes."""
        self._flushed_at = float("-inf")
        await self.settle()  # may claim too: what is under way below the furthest finished line gets its row here
        for run in self._lanes:
            if run.claimed:
                self._outbox.rows(run.claimed.values())
                self._outbox.lane(run.lane)
        self._roster.release()
        await self._commit()

    # --- planning --------------------------------------------------------------------------------------------------

    async def plan(self) -> bool:
        """Follow the log and fill the windows. True: there is more to plan at once."""
        gained = await self._roster.claim() if self._roster.claim_due else ()
        self._head = (await self._service.log.head()).revision
        now = self._world.now()
        await self._follow()
        for lane in gained:
            await self._roster.adopt(lane)
            self._stale = True
        if self._stale:
            await self._refresh(now)
        more = await self._planner.plan(list(self._runs.values()), self._followed, self._incarnation)
        await self._claim_due(now)
        # Not for what could not be taken a moment ago: whoever waits would never get to rest.
        if self._planner.took_news() or self._outbox:
            self._wake()
        return more

    async def _follow(self) -> None:
        """Read what is new about targets and routes. When something about them changed, the lanes are stale."""
        while self._followed < self._head:
            lines = await self._service.log.changes(self._followed, 1000)
            if not lines:  # the log ends before the head that was seen: whoever plans next looks again
                return
            for change in lines:
                self._stale = self._topology.follow(change) or self._stale
                self._followed = change.revision

    async def _refresh(self, now: datetime) -> None:
        """Bring lanes and sessions in line with the targets and routes in force."""
        self._roster.refresh(await self._service.log.head())
        self._progress.routes(self._topology.routes.current().routes, now)
        self._progress.lanes_moved(list(self._roster.by_address), self._roster.by_address, now)
        self._stale = False

    def _event_planned(self, change: Change, planned: Planned) -> None:
        audience = event_of(change).audience
        self._progress.begun(planned.session_id, str(change.key), audience, change.revision, self._world.now())

    async def _claim_due(self, now: datetime) -> None:
        """Mark rows that may be tried as under way. They are handed out once that is stored."""
        time_is_up = self._next_due is not None and self._next_due <= now
        for run in self._runs.values():
            probing = probe_due(run.lane, now)
            if not run.rows or run.claiming or run.target.held or not (run.rows_changed or time_is_up or probing):
                continue
            most = min(_CLAIM_AT_ONCE, _CLAIM_AHEAD * self._limit(run))
            room = most - len(run.claimed)
            if may_send(run.lane, now):
                room = int(probing and not run.claimed)
            elif room < most // 2:
                continue
            if room <= 0:
                continue
            run.rows_changed, version = False, run.row_version
            rows = await self._store.due(run.lane.lane_id, now, room)
            if version != run.row_version:
                run.rows_changed = True  # something happened while the store answered: ask again
                continue
            self._claim(run, [row for row in rows if self._is_free(run, row)], now)
        self._next_due = await self._store.next_due()

    def _is_free(self, run: LaneRun, row: Delivery) -> bool:
        """Whether nothing that happened since the store last heard of the record keeps its row back."""
        unstored = run.has_unstored(row.key) or self._outbox.blocks(run.lane.lane_id, row.key)
        free = not run.is_busy(row) and not unstored
        run.rows_changed = run.rows_changed or not free
        return free and row.delivery_id not in run.claimed

    def _claim(self, run: LaneRun, rows: Sequence[Delivery], now: datetime) -> None:
        if claimed := run.claim(rows, self._limit(run)):
            self._outbox.rows(
                replace(row, state=DeliveryState.SENDING, reason="under way", updated_at=now) for row in claimed
            )
            self._outbox.lane(run.lane)

    # --- sending ---------------------------------------------------------------------------------------------------

    def take(self) -> list[Job]:
        """Attempts that may start now, within the limits; each must be run. Lanes take turns."""
        if self._refused or not self._roster.holds:
            return []
        now = self._world.now()
        runs = [run for run in self._runs.values() if run.due or run.ready]
        jobs: list[Job] = []
        self._turn += 1
        for step in range(len(runs)):
            run = runs[(step + self._turn) % len(runs)]
            while self._in_flight < self._settings.max_in_flight and len(run.flight) < self._limit(run):
                job = self._next_of(run, now)
                if job is None:
                    break
                self._in_flight += 1
                jobs.append(job)
        return jobs

    def _limit(self, run: LaneRun) -> int:
        return run.target.in_flight or self._settings.max_in_flight_per_target

    def _next_of(self, run: LaneRun, now: datetime) -> Job | None:
        if run.target.held:
            return None
        if not may_send(run.lane, now):
            return run.next_job(probe=False)
        if run.flight or not probe_due(run.lane, now):
            return None
        job = run.next_job(probe=True)
        if job is not None:
            lost_at = now + timedelta(seconds=2 * (run.target.timeout or self._settings.retry.timeout_seconds))
            run.lane = begin_probe(run.lane, lost_at)
        return job

    async def run(self, job: Job) -> None:
        """Make one attempt. What the target does becomes an outcome; only a fault of our own is raised, after it has
        become one too."""
        outcome: Outcome | None = None
        try:
            change = job.fresh.change if job.fresh else None
            outcome = await self._sender.send(job.run.target, job.delivery, change)
        except Exception as error:
            outcome = Failed(reason=f"a fault of ours: {type(error).__name__}", status=None, milliseconds=0.0)
            raise
        finally:
            if outcome is not None:
                self._finished.append((job, outcome))
            self._in_flight -= 1
            self._wake()

    # --- settling --------------------------------------------------------------------------------------------------

    @property
    def unsettled(self) -> bool:
        """Whether a commit is due."""
        return bool(self._finished or self._outbox) or self._flush_due or any(run.is_parked for run in self._lanes)

    @property
    def _flush_due(self) -> bool:
        return self._world.monotonic() - self._flushed_at >= _FLUSH_SECONDS

    @property
    def _lanes(self) -> Collection[LaneRun]:
        return self._runs.values()

    async def settle(self) -> None:
        """One commit of everything finished since the last. Raises StorageUnavailable: then nothing more is handed out,
        what is known stays in memory, and the next call tries again."""
        now = self._world.now()
        moved: list[LaneRun] = []
        while self._finished:
            job, outcome = self._finished.popleft()
            if self._runs.get(job.run.lane.lane_id) is job.run:  # not of a lane that was dropped meanwhile
                self._settle_one(job.run, job, outcome, now)
                moved.append(job.run)
        moved += [run for run in self._lanes if run.is_parked]
        if self._flush_due:
            moved += [run for run in self._lanes if run.scanned.position != run.lane.position]
            self._flushed_at = self._world.monotonic()
            self._topology.routes.forget_before(self._roster.oldest - 1)
        for run in dict.fromkeys(moved):
            self._move(run, now)
        self._progress.lanes_moved({run.target.address for run in moved}, self._roster.by_address, now)
        await self._commit()

    def _settle_one(self, run: LaneRun, job: Job, outcome: Outcome, now: datetime) -> None:
        settled = settle(
            run.lane,
            job.delivery,
            outcome,
            now=now,
            chance=self._world.chance(),
            retry=self._settings.retry,
            probe=job.probe,
        )
        for event, fields in news(run.lane, settled):
            self._news(event, target=run.target.address, **fields)
        run.lane = settled.lane
        if settled.delivery is None and job.fresh is None:
            self._outbox.delivered(job.delivery)
        run.finish(job, settled.delivery)
        self._outbox.attempt(settled.attempt, settled.counters)

    def _move(self, run: LaneRun, now: datetime) -> None:
        """Let the lane's stored position follow; what cannot be sent meanwhile goes into rows."""
        if reason := run.closed(now):
            run.park(run.ready, reason)
        mark, rows = run.commit_point()
        run.lane = replace(run.lane, position=mark.position, hash8=mark.hash8, backfill=mark.backfill)
        self._outbox.rows(rows)
        self._outbox.lane(run.lane)

    async def _commit(self) -> None:
        if self._committing or not self._outbox:
            return
        outbox, self._committing = self._outbox, True
        claims = [(run, run.claiming) for run in self._runs.values() if run.claiming]
        self._replace_outbox(Outbox(outbox))
        settlements = outbox.settlements()
        try:
            await self._store.apply(settlements)
            self._refused = False
        except BaseException:  # a cancelled commit too: what it held must not be forgotten
            self._refused = True
            self._replace_outbox(outbox.followed_by(self._outbox))
            raise
        finally:
            self._committing = False
            self._outbox.before = None
        self._roster.stored(settlements.lanes)
        for run, rows in claims:
            run.due.extend(rows)
            run.claiming = []
        for lane_id in {row.lane_id for row in settlements.upserts} | {lane_id for lane_id, _ in settlements.removed}:
            if lane_id in self._runs:
                self._runs[lane_id].rows_changed = True
        self._wake()
        self._wake_planner()

    def _replace_outbox(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._progress.outbox = self._planner.outbox = self._roster.outbox = outbox

    # --- what people ask -------------------------------------------------------------------------------------------

    def next_wake(self) -> float:
        """Seconds until something may be due, at most a tick."""
        now = self._world.now()
        times = [self._next_due] if self._next_due else []
        times += [
            moment
            for run in self._runs.values()
            if run.rows or run.ready
            for moment in (run.lane.open_until, run.lane.pause_until)
            if moment is not None and moment > now
        ]
        return max(0.0, min([TICK, *((moment - now).total_seconds() for moment in times)]))

    def lag(self) -> int:
        """Planned lines without a row, and lines that lanes at their bound have not looked at."""
        return sum(run.unfinished + self._planner.lag(run, self._head) for run in self._runs.values())

    def positions(self) -> dict[str, Position]:
        """Lane id -> how far it has come, where that is further than what is stored."""
        if self._outbox or self._committing:
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
        return not (self._finished or self._outbox or self._in_flight) and all(
            self._is_idle(run, now) for run in self._runs.values()
        )

    def _is_idle(self, run: LaneRun, now: datetime) -> bool:
        if run.unfinished or run.claimed or run.is_parked:
            return False
        if run.rows and run.rows_changed and not run.target.held and not may_send(run.lane, now):
            return False  # a row may have become due, and nobody has looked yet
        return not self._planner.has_room(run) or not self._planner.lags(run, max(self._head, self._followed))


def _nothing(*_: object, **__: object) -> None:
    """Nobody listens yet."""
