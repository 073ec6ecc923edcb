"""The lanes that this daemon works at: which are its own, for how long, and which targets need one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from msgspec.structs import replace

from universal_registry.kernel.errors import CursorMismatch
from universal_registry.log.cursor import Cursor, Head
from universal_registry.propagation.breaker import probe_undecided
from universal_registry.propagation.lane import Lane
from universal_registry.propagation.outbox import Outbox
from universal_registry.propagation.ports import LaneStore
from universal_registry.propagation.topology import Topology, targets_without_lane
from universal_registry.propagation.views import moment_text
from universal_registry.propagation.window import LaneRun
from universal_registry.registry.service import RegistryService

LEASE = timedelta(seconds=30)
_RENEW_SECONDS = 10.0


class Roster:
    """`runs`: lane id -> lane at work; `by_address`: the same by target.

    `shared`: other daemons may use the same store. Then lanes are held by a lease that is renewed in time, and a new
    lane is worked at only when it is stored and a claim has shown that no other daemon was first to make it.
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
        self._claimed_at = 0.0
        self._made: set[str] = set()
        self._stored = False
        self._elsewhere: set[str] = set()

    # --- whose they are --------------------------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether the lanes at work are still ours for certain: no other daemon may have taken them."""
        return not self._shared or self._world.monotonic() - self._claimed_at < LEASE.total_seconds()

    @property
    def claim_due(self) -> bool:
        """Whether it is time to renew the leases, or to see which of the new lanes are ours."""
        return self._shared and (self._stored or self._world.monotonic() - self._claimed_at >= _RENEW_SECONDS)

    async def claim(self) -> Sequence[Lane]:
        """Renew, and forget what another daemon has taken. Returns lanes that are ours and not yet at work.

        `adopt` them when the log has been read up to a head that is newer than this call: what they are for is in it.
        """
        now, began = self._world.now(), self._world.monotonic()
        lanes = {lane.lane_id: lane for lane in await self._store.claim(self._owner, now, now + LEASE)}
        self._claimed_at, self._stored = began, False
        for run in list(self.runs.values()):
            lane = lanes.get(run.lane.lane_id)
            if lane is None or lane.generation != run.lane.generation:
                self._forget(run)
                self._elsewhere.add(run.lane.lane_id)
            else:
                run.lane = replace(run.lane, lease_until=lane.lease_until)
                del lanes[lane.lane_id]
        self._elsewhere |= self._made - lanes.keys()
        self._made.clear()
        return list(lanes.values())

    def stored(self, lanes: Iterable[Lane]) -> None:
        """These were committed."""
        self._stored = self._stored or any(lane.lane_id in self._made for lane in lanes)

    def release(self) -> None:
        """Let other daemons have the lanes as soon as this is committed."""
        if self._shared:
            for run in self.runs.values():
                run.lane = replace(run.lane, lease_until=None)
                self.outbox.lane(run.lane)

    @property
    def oldest(self) -> int:
        """The lowest revision that a lane at work has read up to; 0 when lanes from further back may come to us."""
        return 0 if self._shared else min((run.scanned.position.revision for run in self.runs.values()), default=0)

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
                return
        if lane.held and lane.last_failure_at and target.updated_at >= (moment_text(lane.last_failure_at) or ""):
            lane = replace(lane, held="")  # as in `refresh`, for a word that came while nobody ran
        self._run(LaneRun(probe_undecided(lane, self._world.now()), target))

    def refresh(self, head: Head) -> None:
        """Bring the lanes in line with the targets in force."""
        for run in list(self.runs.values()):
            target = self._topology.targets.get(run.target.address)
            if target is None or target.uid != run.lane.target_uid:
                self._forget(run)
                self.outbox.drop(run.lane.lane_id)
            elif target != run.target:
                run.target = target
                run.rows_changed = run.rows > 0
                # A 410 held it; a new word on the target is somebody having looked.
                run.lane = replace(run.lane, held="", transport=target.transport)
                self.outbox.lane(run.lane)
        for target in targets_without_lane(self._topology.targets, [run.lane for run in self.runs.values()]):
            lane = replace(self._topology.new_lane(target, head), owner=self._owner, generation=1)
            if not self._shared:
                self._run(LaneRun(lane, target))
                self.outbox.lane(lane)
            elif lane.lane_id not in self._elsewhere | self._made:
                self._made.add(lane.lane_id)
                self.outbox.lane(replace(lane, lease_until=self._world.now() + LEASE))

    def _run(self, run: LaneRun) -> None:
        self.runs[run.lane.lane_id] = run
        self.by_address[run.target.address] = run

    def _forget(self, run: LaneRun) -> None:
        del self.runs[run.lane.lane_id]
        if self.by_address.get(run.target.address) is run:
            del self.by_address[run.target.address]
