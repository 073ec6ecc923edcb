"""The lanes that this daemon works at: which are its own, for how long, and which targets need one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.errors import CursorMismatch
from universal_registry.kernel.settings import RetrySettings
from universal_registry.log.cursor import Cursor, Head
from universal_registry.propagation.engine.outbox import Outbox
from universal_registry.propagation.engine.stirred import Stirred
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.breaker import after_clock_step, probe_undecided, written_ahead
from universal_registry.propagation.lanes.lane import Guard, Lane
from universal_registry.propagation.lanes.lane_command import after_target_change
from universal_registry.propagation.ports import LaneStore
from universal_registry.propagation.routing.target import Target
from universal_registry.propagation.routing.topology import Topology, targets_without_lane
from universal_registry.registry.service import RegistryService

LEASE = timedelta(seconds=30)
_RENEW_SECONDS = 3.0


class Roster:
    """`runs`: lane id -> lane at work; `by_address`: the same by target.

    `shared`: other daemons may use the same store. Then lanes are held by a lease that is renewed in time; a new lane
    is stored without an owner, and claimed by whoever has room for it; and what is more than this daemon's share is
    handed over, lane by lane, each when nothing of it is under way.
    """

    def __init__(
        self, service: RegistryService, store: LaneStore, topology: Topology, outbox: Outbox, *, shared: bool
    ) -> None:
        self._log = service.log
        self._world = service.world
        self._store = store
        self._topology = topology
        self.outbox = outbox
        self._shared = shared
        self._owner = service.world.new_id()
        self.runs: dict[str, LaneRun] = {}
        self.by_address: dict[str, LaneRun] = {}
        self.stirred = Stirred()
        self._places = 0
        self._claimed_at = 0.0
        self._stored = False
        self._elsewhere: set[str] = set()
        self._reborn: set[str] = set()
        self._handed_over: list[LaneRun] = []

    # --- whose they are --------------------------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether the lanes at work are still ours for certain: no other daemon may have taken them."""
        return not self._shared or self._world.monotonic() - self._claimed_at < LEASE.total_seconds()

    @property
    def claim_due(self) -> bool:
        """Whether it is time to renew the lease, to see which of the new lanes are ours, or to give some up."""
        return self._shared and (
            self._stored
            or self._world.monotonic() - self._claimed_at >= _RENEW_SECONDS
            or any(self._may_leave(run) for run in self._handed_over)
        )

    async def claim(self) -> Sequence[Lane]:
        """Renew, give up what may be, and forget what another daemon has taken. Returns lanes that are ours and not yet
        at work.

        `adopt` them when the log has been read up to a head that is newer than this call: what they are for is in it.
        """
        now, began = self._world.now(), self._world.monotonic()
        self._stored = False
        # Forgotten before: should the answer be lost, the next claim finds that there is more than we know of.
        leaving = [run.lane.lane_id for run in self._handed_over if self._may_leave(run)]
        for lane_id in leaving:
            self._lose(self.runs[lane_id])
        claimed = await self._store.claim(self._owner, now, now + LEASE, leaving=leaving, holding=len(self.runs))
        self._claimed_at = began
        gained = [] if claimed.lanes is None else self._gained(claimed.lanes)
        self._hand_over(len(self.runs) + len(gained) - claimed.share)
        return gained

    def _gained(self, ours: Sequence[Lane]) -> list[Lane]:
        """The others of all that are ours; a lane that was another's meanwhile is begun anew."""
        lanes = {lane.lane_id: lane for lane in ours}
        for run in list(self.runs.values()):
            lane = lanes.get(run.lane.lane_id)
            if lane is None or lane.generation != run.lane.generation:
                self._lose(run)
            else:
                del lanes[lane.lane_id]
        return list(lanes.values())

    def _hand_over(self, surplus: int) -> None:
        """So many lanes are more than our share: first those that were to go already, then those with least in hand."""
        if surplus <= 0 and not self._handed_over:
            return
        runs = sorted(self.runs.values(), key=lambda run: (not run.handed_over, len(run.flight), run.unfinished))
        for place, run in enumerate(runs):
            run.handed_over = place < surplus
            run.stir()
        self._handed_over = runs[: max(0, surplus)]

    def _may_leave(self, run: LaneRun) -> bool:
        lane_id = run.lane.lane_id
        return self.runs.get(lane_id) is run and run.is_at_rest and not self.outbox.holds(lane_id)

    def stored(self, lanes: Iterable[Lane]) -> None:
        """These were committed."""
        self._stored = self._stored or any(not lane.owner for lane in lanes)

    async def leave(self) -> None:
        """Let other daemons have the lanes at once. What is under way of them is given up."""
        if self._shared:
            now, self._claimed_at = self._world.now(), float("-inf")
            await self._store.claim(self._owner, now, now)

    @property
    def oldest(self) -> int:
        """The lowest revision that a lane at work has read up to; 0 when lanes from further back may come to us."""
        return 0 if self._shared else min((run.scanned.position.revision for run in self.runs.values()), default=0)

    @property
    def backfills(self) -> set[str]:
        """What the lanes at work are sending the older state of: uids of routes, ids of replays."""
        return {run.scanned.backfill.route_uid for run in self.runs.values() if run.scanned.backfill is not None}

    # --- which there are -------------------------------------------------------------------------------------------

    async def adopt(self, lane: Lane) -> None:
        """A stored lane goes on where it was, unless its target is gone or the log is no longer the one it read."""
        target = self._topology.targets.get(f"{lane.target_namespace}/{lane.target_name}")
        if target is None or target.uid != lane.target_uid:
            self.outbox.drop(lane.lane_id)
            return
        self._elsewhere.discard(lane.lane_id)
        if lane.hash8:
            try:
                await self._log.check_cursor(Cursor(lane.incarnation, lane.position.revision, lane.hash8))
            except CursorMismatch:
                # The registry was restored or replaced: send the current state again, from the first route on.
                self.outbox.drop(lane.lane_id)
                self._reborn.add(lane.lane_id)
                return
        run = LaneRun(probe_undecided(lane, self._world.now()), target, self.stirred)
        if lane.guard.target != target.revision:  # as in `refresh`, for a word that came while nobody ran
            self._follow(run, target, moved=True)
        self._run(run)
        if run.lane != lane:
            self.outbox.lane(run.lane)

    def refresh(self, head: Head) -> None:
        """Bring the lanes in line with the targets in force."""
        for run in list(self.runs.values()):
            target = self._topology.targets.get(run.target.address)
            if target is None or target.uid != run.lane.target_uid:
                self._forget(run)
                self.outbox.drop(run.lane.lane_id)
            elif target != run.target:
                self._follow(run, target, moved=target.url != run.target.url)
                run.target = target
                run.rows_changed = run.rows > 0
                self.outbox.lane(run.lane)
        for target in targets_without_lane(self._topology.targets, [run.lane for run in self.runs.values()]):
            self._make(target, head)

    def _make(self, target: Target, head: Head) -> None:
        guard = Guard(target=target.revision)
        lane = replace(self._topology.new_lane(target, head), order=target.traffic.order, guard=guard)
        if not self._shared or lane.lane_id in self._reborn:
            self._reborn.discard(lane.lane_id)
            lane = replace(lane, owner=self._owner, generation=1)
            self._run(LaneRun(lane, target, self.stirred))
            self.outbox.lane(lane)
        elif lane.lane_id not in self._elsewhere:
            self._elsewhere.add(lane.lane_id)
            self.outbox.lane(lane)

    def _follow(self, run: LaneRun, target: Target, *, moved: bool) -> None:
        """Somebody has changed the target. Whatever held the lane for what it was before ends."""
        run.reorder(target.traffic.order)
        lane = after_target_change(run.lane, target.traffic.order, moved=moved)
        guard = replace(lane.guard, target=target.revision)
        run.lane = replace(lane, transport=target.transport, guard=guard)
        run.stir()

    def after_clock_step(self, now: datetime, retry: RetrySettings, *, seen: bool) -> None:
        """No lane waits longer because the clock went back. `seen`: it did; else only where a lane tells of it."""
        for run in self.runs.values():
            stepped = after_clock_step(run.lane, now, retry) if seen or written_ahead(run.lane, now) else run.lane
            if seen and run.rows:  # the store has moved them
                run.rows_changed, run.row_version = True, run.row_version + 1
                run.stir()
            if stepped != run.lane:
                run.lane, run.rows_changed = stepped, run.rows > 0
                self.outbox.lane(stepped)

    def _run(self, run: LaneRun) -> None:
        self._places += 1
        run.place = self._places
        self.runs[run.lane.lane_id] = run
        self.by_address[run.target.address] = run

    def _lose(self, run: LaneRun) -> None:
        self._forget(run)
        self._elsewhere.add(run.lane.lane_id)

    def _forget(self, run: LaneRun) -> None:
        del self.runs[run.lane.lane_id]
        self.stirred.forget(run)
        if self.by_address.get(run.target.address) is run:
            del self.by_address[run.target.address]
