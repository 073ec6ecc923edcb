"""Reading the log for the lanes: those at the same place share one pass; a lane in a backfill reads for itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import World
from universal_registry.log.change import Change, Op
from universal_registry.propagation.breaker import may_send
from universal_registry.propagation.lane import WHOLE, Backfill, Delivery, Position
from universal_registry.propagation.outbox import Outbox
from universal_registry.propagation.plan import Planned, plan, plan_backfill, starts_backfill
from universal_registry.propagation.ports import LaneStore
from universal_registry.propagation.route import Route
from universal_registry.propagation.target import Target
from universal_registry.propagation.topology import Topology
from universal_registry.propagation.window import WINDOW, LaneRun, Mark
from universal_registry.registry.service import RegistryService

_SEQ_BITS = 20
_BLOCKS = 16
# A window is filled again when half of it is free: reading for every free place would read each block many times.
_WORTH_READING = WINDOW // 2
Place = tuple[int, int]


class Planner:
    """Plans windows. It changes lanes in memory and puts rows into the outbox; it commits nothing."""

    def __init__(
        self,
        service: RegistryService,
        store: LaneStore,
        topology: Topology,
        outbox: Outbox,
        rows_per_lane: int,
        on_event: Callable[[Change, Planned, LaneRun], None],
    ) -> None:
        self._service = service
        self._store = store
        self._topology = topology
        self.outbox = outbox
        self._rows_per_lane = rows_per_lane
        self._world: World = service.world
        self._on_event = on_event
        self._news = False
        self._blocks: dict[tuple[int, int | None], Sequence[Change]] = {}

    async def plan(self, runs: Collection[LaneRun], head_revision: int, incarnation: str) -> bool:
        """Plan one window for each lane that has room and lags behind the head. True: some lane can go on at once."""
        more = False
        groups: dict[Place, list[LaneRun]] = defaultdict(list)
        for run in runs:
            if not self.has_room(run):
                continue
            if run.scanned.backfill is not None:
                await self._backfill(run, run.scanned.backfill, incarnation)
                more = True
            elif run.scanned.position < Position(head_revision, WHOLE):
                groups[run.scanned.position.revision, run.scanned.position.seq].append(run)
        for place, group in groups.items():
            await self._window(place, group, incarnation)
            more = more or any(run.scanned.position < Position(head_revision, WHOLE) for run in group)
        return more and any(self.has_room(run) and self.lags(run, head_revision) for run in runs)

    def lags(self, run: LaneRun, head_revision: int) -> bool:
        """Whether the log has lines that the lane has not looked at."""
        return run.scanned.backfill is not None or run.scanned.position < Position(head_revision, WHOLE)

    def has_room(self, run: LaneRun) -> bool:
        """Whether the lane may plan on."""
        return run.room >= _WORTH_READING and run.rows < self._rows_per_lane

    def took_news(self) -> bool:
        """Whether anything was planned since this was asked last."""
        news, self._news = self._news, False
        return news

    def lag(self, run: LaneRun, head_revision: int) -> int:
        """Lines that a lane held at its bound has not looked at: an upper bound of what waits for it in the log."""
        return 0 if self.has_room(run) else max(0, head_revision - run.scanned.position.revision)

    # --- the common pass -------------------------------------------------------------------------------------------

    async def _window(self, place: Place, group: list[LaneRun], incarnation: str) -> None:
        revision, seq = place
        lines = await self._read(revision, seq)
        if not lines:
            for run in group:
                run.scanned = msgspec.structs.replace(run.scanned, position=Position(revision, WHOLE))
            return
        active = {run.target.address: run for run in group}
        targets = {address: run.target for address, run in active.items()}
        for change in lines:
            self._stop_for_backfill(change, active, targets)
            if not active:
                return
            table = self._topology.routes.at(change.revision)
            mark = Mark(Position(change.revision, change.seq), change.hash[:4].hex())
            for planned in plan(change, None, table, targets, incarnation):
                run = active[planned.target]
                await self._add(run, change, planned, mark)
                if change.op is Op.EVENT:
                    self._on_event(change, planned, run)
                if not self.has_room(run):
                    run.scanned = mark
                    del active[planned.target], targets[planned.target]
        last = lines[-1]
        for run in active.values():
            run.scanned = Mark(Position(last.revision, WHOLE), last.hash[:4].hex())

    async def _read(self, revision: int, seq: int, upto: int | None = None) -> Sequence[Change]:
        """Lines after a place; none only at the end of the log (or of `upto`)."""
        if seq != WHOLE:
            lines = await self._block(revision - 1, upto)
            if rest := [line for line in lines if (line.revision, line.seq) > (revision, seq)]:
                return rest
        return await self._block(revision, upto)

    async def _block(self, after: int, upto: int | None) -> Sequence[Change]:
        """Whole revisions after a revision. What can no longer change is kept for the other lanes that come by."""
        kept = self._blocks.get((after, upto))
        if kept is not None:
            return kept
        lines = await self._service.log.changes(after, WINDOW, upto=upto)
        if upto is not None or len(lines) >= WINDOW:
            if len(self._blocks) >= _BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[after, upto] = lines
        return lines

    def _stop_for_backfill(self, change: Change, active: dict[str, LaneRun], targets: dict[str, Target]) -> None:
        """A lane that meets the put of a route of its own first sends the state that was there before."""
        routes = self._topology.routes
        for address in starts_backfill(change, routes.at(change.revision), routes.at(change.revision - 1)):
            run = active.pop(address, None)
            targets.pop(address, None)
            if run is not None:
                backfill = Backfill(route_uid=change.uid, upto=change.revision, at=0)
                run.scanned = Mark(Position(change.revision, change.seq), change.hash[:4].hex(), backfill)

    # --- backfills -------------------------------------------------------------------------------------------------

    async def _backfill(self, run: LaneRun, backfill: Backfill, incarnation: str) -> None:
        route = self._topology.routes.at(backfill.upto).by_uid.get(backfill.route_uid)
        behind = msgspec.structs.replace(run.scanned, backfill=None)
        if route is None:
            run.scanned = behind
            return
        revision, seq = backfill.at >> _SEQ_BITS, backfill.at & WHOLE
        lines = await self._read(revision, seq, upto=backfill.upto - 1)
        for change in lines:
            at = (change.revision << _SEQ_BITS) + change.seq
            run.scanned = msgspec.structs.replace(behind, backfill=msgspec.structs.replace(backfill, at=at))
            planned = await self._older(change, route, run, incarnation)
            if planned is not None:
                await self._add(run, change, planned, run.scanned)
                if not self.has_room(run):
                    return
        if lines:
            at = (lines[-1].revision << _SEQ_BITS) + WHOLE
            run.scanned = msgspec.structs.replace(behind, backfill=msgspec.structs.replace(backfill, at=at))
        else:
            run.scanned = behind

    async def _older(self, change: Change, route: Route, run: LaneRun, incarnation: str) -> Planned | None:
        if change.op is not Op.PUT or (route.kinds and change.kind not in route.kinds):
            return None
        record = await self._service.records.get(change.key)
        return plan_backfill(change, record, route, run.target, incarnation)

    # --- one planned line ------------------------------------------------------------------------------------------

    async def _add(self, run: LaneRun, change: Change, planned: Planned, mark: Mark) -> None:
        now = self._world.now()
        delivery = Delivery(
            delivery_id=planned.delivery_id,
            lane_id=run.lane.lane_id,
            session_id=planned.session_id,
            route_uid=planned.route_uid,
            op=change.op,
            kind=change.kind,
            namespace=change.namespace,
            name=change.name,
            revision=change.revision,
            seq=change.seq,
            created_at=now,
            updated_at=now,
        )
        blocked = await self._is_blocked(run, change.key)
        reason = may_send(run.lane, now) or run.target.held
        if not reason and blocked:
            reason = "waits behind an earlier change of the same record"
        self._news = True
        fresh = run.add(delivery, change, mark)
        if reason:
            rows = run.park([fresh], reason)
            run.rows += len(rows)
            run.rows_changed = True
            self.outbox.rows(rows)
            self.outbox.lane(run.lane)

    async def _is_blocked(self, run: LaneRun, key: Key) -> bool:
        """Whether an earlier change of the record has a live row, one that is being stored just now included."""
        while run.rows:
            version = run.row_version
            if self.outbox.blocks(run.lane.lane_id, key):
                return True
            stored = await self._store.blocked_keys(run.lane.lane_id, [key])
            if version == run.row_version:
                return bool(stored)
        return False
