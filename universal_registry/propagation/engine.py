"""The propagation engine: plans windows of the log, hands out attempts, settles what came of them.

It holds what is under way in memory and nothing that would be missed: after a kill, the log, the lanes' positions and
the rows say all. The runner lends it time: `plan` after each wake-up, `take` and `run` for attempts, `settle` for the
one commit of each tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.errors import CursorMismatch
from universal_registry.kernel.settings import Settings
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Cursor
from universal_registry.propagation.breaker import begin_probe, may_send, probe_due, probe_undecided
from universal_registry.propagation.lane import Delivery, DeliveryState, Lane, Position
from universal_registry.propagation.outbox import Outbox
from universal_registry.propagation.outcome import Outcome
from universal_registry.propagation.plan import Planned, event_of
from universal_registry.propagation.planner import Planner
from universal_registry.propagation.ports import PropagationStore, Transport
from universal_registry.propagation.progress import Progress
from universal_registry.propagation.sender import Sender
from universal_registry.propagation.settle import settle
from universal_registry.propagation.topology import Topology, targets_without_lane
from universal_registry.propagation.window import Job, LaneRun
from universal_registry.registry.service import RegistryService

LEASE = timedelta(minutes=5)
TICK = 1.0
_CLAIM_AT_ONCE = 64
_CLAIM_AHEAD = 4  # for each that can be under way: all of them are blamed when the daemon ends
_FLUSH_SECONDS = 5.0


class Engine:
    """One daemon's engine. Not safe for several loops; its methods interleave only at their awaits."""

    def __init__(
        self, service: RegistryService, store: PropagationStore, transports: Mapping[str, Transport], settings: Settings
    ) -> None:
        self._service = service
        self._world = service.world
        self._store = store
        self._settings = settings
        self._owner = service.world.new_id()
        self._outbox = Outbox()
        self._committing = False
        self._refused = False
        self._topology = Topology(service)
        self._sender = Sender(service, self._topology.routes, transports, settings.retry.timeout_seconds)
        self._progress = Progress(self._outbox)
        self._planner = Planner(
            service, store, self._topology, self._outbox, settings.rows_per_lane, self._event_planned
        )
        self._runs: dict[str, LaneRun] = {}
        self._by_address: dict[str, LaneRun] = {}
        self._finished: deque[tuple[Job, Outcome]] = deque()
        self._in_flight = 0
        self._turn = 0
        self._followed = 0
        self._head = 0
        self._incarnation = ""
        self._next_due: datetime | None = None
        self._flushed_at = 0.0
        self._wake: Callable[[], None] = _nothing
        self._wake_planner: Callable[[], None] = _nothing

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over the lanes, and load targets, routes and sessions."""
        now = self._world.now()
        head = await self._service.log.head()
        self._incarnation = self._sender.incarnation = head.incarnation
        self._followed = head.revision
        await self._topology.load()
        self._progress.load(await self._store.sessions())
        for lane in await self._store.claim(self._owner, now, now + LEASE):
            await self._adopt(lane, now)
        self._flushed_at = self._world.monotonic()
        await self._refresh(now)
        await self._commit()

    async def _adopt(self, lane: Lane, now: datetime) -> None:
        """A stored lane goes on where it was, unless its target is gone or the log is no longer the one it read."""
        target = self._topology.targets.get(f"{lane.target_namespace}/{lane.target_name}")
        if target is None or target.uid != lane.target_uid:
            self._outbox.drop(lane.lane_id)
            return
        if lane.hash8:
            try:
                await self._service.log.check_cursor(Cursor(lane.incarnation, lane.position.revision, lane.hash8))
            except CursorMismatch:
                # The registry was restored or replaced: send the current state again, from the first route on.
                self._outbox.drop(lane.lane_id)
                return
        self._run_lane(LaneRun(probe_undecided(lane, now), target))

    def _run_lane(self, run: LaneRun) -> None:
        self._runs[run.lane.lane_id] = run
        self._by_address[run.target.address] = run

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to take or to settle."""
        self._wake = callback

    def on_plan(self, callback: Callable[[], None]) -> None:
        """Call this when there may be something to plan that no commit of the registry announces."""
        self._wake_planner = callback

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self._sender.timeout = settings.retry.timeout_seconds

    async def stop(self) -> None:
        """Store what is finished, and give back the rows that were claimed and not sent."""
        for run in self._runs.values():
            if run.claimed:
                self._outbox.rows(run.claimed.values())
                self._outbox.lane(run.lane)
        self._flushed_at = float("-inf")
        await self.settle()

    # --- planning --------------------------------------------------------------------------------------------------

    async def plan(self) -> bool:
        """Follow the log and fill the windows. True: there is more to plan at once."""
        self._head = (await self._service.log.head()).revision
        now = self._world.now()
        if await self._follow():
            await self._refresh(now)
        more = await self._planner.plan(list(self._runs.values()), self._head, self._incarnation)
        await self._claim_due(now)
        # Not for what could not be taken a moment ago: whoever waits would never get to rest.
        if self._planner.took_news() or self._outbox:
            self._wake()
        return more

    async def _follow(self) -> bool:
        """Read what is new about targets and routes. True when something about them changed."""
        changed = False
        while self._followed < self._head:
            for change in await self._service.log.changes(self._followed, 1000):
                changed = self._topology.follow(change) or changed
                self._followed = change.revision
        return changed

    async def _refresh(self, now: datetime) -> None:
        """Bring lanes and sessions in line with the targets and routes in force."""
        head = await self._service.log.head()
        for run in list(self._runs.values()):
            target = self._topology.targets.get(run.target.address)
            if target is None or target.uid != run.lane.target_uid:
                del self._runs[run.lane.lane_id]
                self._by_address.pop(run.target.address, None)
                self._outbox.drop(run.lane.lane_id)
            elif target != run.target:
                run.target = target
                run.rows_changed = run.rows > 0
                # A 410 held it; a new word on the target is somebody having looked.
                run.lane = replace(run.lane, held="", transport=target.transport)
                self._outbox.lane(run.lane)
        for target in targets_without_lane(self._topology.targets, [run.lane for run in self._runs.values()]):
            lane = replace(self._topology.new_lane(target, head), owner=self._owner, generation=1)
            self._run_lane(LaneRun(lane, target))
            self._outbox.lane(lane)
        self._progress.routes(self._topology.routes.current().routes, now)

    def _event_planned(self, change: Change, planned: Planned, run: LaneRun) -> None:
        event = event_of(change)
        source = str(change.key)
        self._progress.event(
            planned.session_id, source, event.audience, change.revision, run.lane.lane_id, self._world.now()
        )

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
            run.rows_changed = False
            rows = await self._store.due(run.lane.lane_id, now, room)
            self._claim(run, [row for row in rows if self._is_free(run, row)], now)
        self._next_due = await self._store.next_due()

    def _is_free(self, run: LaneRun, row: Delivery) -> bool:
        """Whether nothing that happened since the store last heard of the record keeps its row back."""
        free = not run.is_busy(row) and not self._outbox.blocks(run.lane.lane_id, row.key)
        run.rows_changed = run.rows_changed or not free
        return free and row.delivery_id not in run.claimed

    def _claim(self, run: LaneRun, rows: Sequence[Delivery], now: datetime) -> None:
        if claimed := run.claim(rows, self._limit(run)):
            self._outbox.rows(replace(row, state=DeliveryState.SENDING, updated_at=now) for row in claimed)
            self._outbox.lane(run.lane)

    # --- sending ---------------------------------------------------------------------------------------------------

    def take(self) -> list[Job]:
        """Attempts that may start now, within the limits; each must be run. Lanes take turns."""
        if self._refused:
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
        """Make one attempt. What the target does becomes an outcome; nothing is raised."""
        try:
            run = self._runs.get(job.lane_id)
            if run is None:
                return
            change = job.fresh.change if job.fresh else None
            outcome = await self._sender.send(run.target, job.delivery, change)
            self._finished.append((job, outcome))
        finally:
            self._in_flight -= 1
            self._wake()

    # --- settling --------------------------------------------------------------------------------------------------

    @property
    def unsettled(self) -> bool:
        """Whether a commit is due."""
        return bool(self._finished or self._outbox) or self._world.monotonic() - self._flushed_at >= _FLUSH_SECONDS

    async def settle(self) -> None:
        """One commit of everything finished since the last. Raises StorageUnavailable: then nothing more is handed out,
        what is known stays in memory, and the next call tries again."""
        now = self._world.now()
        moved: dict[str, LaneRun] = {}
        while self._finished:
            job, outcome = self._finished.popleft()
            run = self._runs.get(job.lane_id)
            if run is not None:
                self._settle_one(run, job, outcome, now)
                moved[job.lane_id] = run
        if self._world.monotonic() - self._flushed_at >= _FLUSH_SECONDS:
            moved.update({key: run for key, run in self._runs.items() if run.scanned.position != run.lane.position})
            self._flushed_at = self._world.monotonic()
        for run in moved.values():
            self._move(run, now)
        self._progress.lanes_moved(self._by_address, now)
        await self._commit()

    def _settle_one(self, run: LaneRun, job: Job, outcome: Outcome, now: datetime) -> None:
        delivery = job.delivery
        had_row = job.fresh is None
        settled = settle(
            run.lane,
            delivery,
            outcome,
            now=now,
            chance=self._world.chance(),
            retry=self._settings.retry,
            probe=job.probe,
        )
        run.lane = settled.lane
        rows = run.finish(job, settled.delivery)
        dead = settled.delivery is not None and settled.delivery.state is DeliveryState.DEAD
        if settled.delivery is None and had_row:
            self._outbox.delivered(delivery)
        run.rows += len(rows) - int(had_row) - int(dead)
        run.rows_changed = True
        self._outbox.rows(rows)
        self._outbox.attempt(settled.attempt, settled.counters)
        if delivery.op == Op.EVENT and (settled.delivery is None or dead):
            self._progress.ended(delivery.session_id, run.lane.lane_id, dead=dead, now=now)

    def _move(self, run: LaneRun, now: datetime) -> None:
        """Let the lane's stored position follow; what cannot be sent meanwhile goes into rows."""
        reason = run.target.held or ("" if probe_due(run.lane, now) else may_send(run.lane, now))
        rows = run.park(run.ready, reason) if reason else []
        mark, behind = run.commit_point()
        rows += behind
        run.rows += len(rows)
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
        self._progress.outbox = self._planner.outbox = outbox

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
            if not run.unfinished and run.scanned.backfill is None
        }

    @property
    def idle(self) -> bool:
        """Whether all that the log asks for is delivered or stands in a row that is not due, and is stored."""
        now = self._world.now()
        return not (self._finished or self._outbox or self._in_flight) and all(
            self._is_idle(run, now) for run in self._runs.values()
        )

    def _is_idle(self, run: LaneRun, now: datetime) -> bool:
        if run.unfinished or run.claimed:
            return False
        if run.rows and run.rows_changed and not run.target.held and not may_send(run.lane, now):
            return False  # a row may have become due, and nobody has looked yet
        return not self._planner.has_room(run) or not self._planner.lags(run, self._head)


def _nothing() -> None:
    """Nobody listens yet."""
