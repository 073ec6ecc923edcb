"""Reading the log for the lanes: those at the same place share one pass (packs.py); one in a backfill reads alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

import msgspec

from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.kernel.world import World
from universal_registry.log.change import Change, Op
from universal_registry.propagation.engine.outbox import Outbox
from universal_registry.propagation.engine.packs import Pack, Packs
from universal_registry.propagation.engine.window import WAITS, WINDOW, LaneRun
from universal_registry.propagation.lanes.lane import (
    WHOLE,
    Backfill,
    Delivery,
    Keep,
    Mark,
    Order,
    Position,
    WaitsFor,
    unpacked,
)
from universal_registry.propagation.ports import LaneStore
from universal_registry.propagation.routing.plan import Planned, plan, plan_backfill, starts_backfill
from universal_registry.propagation.routing.replay import repeater as repeater_of
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.routing.target import Target
from universal_registry.propagation.routing.topology import Topology
from universal_registry.propagation.routing.unread import unread_from
from universal_registry.registry.service import RegistryService

# Others must get their turn while many lanes catch up: so many windows of backfills a pass.
_BACKFILLS_A_PASS = 16
_MOST_BLOCK_BYTES = 8 << 20
# A window is filled again when half of it is free, which is as many lines as are read at once.
AT_ONCE = WINDOW // 2


class _Targets(Mapping[str, Target]):
    """The targets of lanes, by address."""

    def __init__(self, runs: Mapping[str, LaneRun]) -> None:
        self._runs = runs

    def __getitem__(self, address: str) -> Target:
        return self._runs[address].target

    def __contains__(self, address: object) -> bool:
        return address in self._runs

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)


class Planner:
    """Plans windows. It changes lanes in memory and commits nothing. `alone`: the lanes that are in no pack."""

    def __init__(
        self,
        service: RegistryService,
        store: LaneStore,
        topology: Topology,
        outbox: Outbox,
        alone: Collection[LaneRun],
        rows_per_lane: int,
        on_event: Callable[[Change, datetime], None],
    ) -> None:
        self._service = service
        self._store = store
        self._topology = topology
        self.outbox = outbox
        self._alone = alone
        self._packs = Packs()
        self.rows_per_lane = rows_per_lane
        self._world: World = service.world
        self._on_event = on_event
        self._news = False
        self._announced: Change | None = None
        self._turn = 0
        self._blocks: dict[tuple[int, int | None], Sequence[Change]] = {}
        self._block_bytes = 0
        self._newest: tuple[int, Sequence[Change]] | None = None

    def offer(self, after: int, lines: Sequence[Change]) -> None:
        """All lines of some revisions from `after` on, the newest ones of the log, which need not be read again."""
        self._newest = (after, lines)

    async def plan(self, upto: int, incarnation: str) -> bool:
        """Plan a window for each lane that has room and lags behind revision `upto`, to which routes and targets have
        been followed: no line beyond it is looked at. True: some lane can go on at once."""
        end = Position(upto, WHOLE)
        read = 0
        for run in self._backfilling():
            if run.scanned.backfill is not None and read < _BACKFILLS_A_PASS:
                read += await self._backfill(run, run.scanned.backfill, incarnation)
        ahead = self._packs.before(end)
        while ahead:
            pack = ahead.popleft()
            if pack.runs:  # else they went on with others
                await self._window(pack, ahead, upto, incarnation)
        alone = [run for run in self._alone if not run.handed_over and self.lags(run, upto)]
        more = bool(self._packs.before(end)) or any(map(self.has_room, alone))
        if not (more or alone):
            self._blocks.clear()
            self._block_bytes = 0
        return more

    def _backfilling(self) -> list[LaneRun]:
        """The lanes with room that send older state, in turns; the others that stood alone and have room join those at
        their place."""
        backfills: list[LaneRun] = []
        for run in list(self._alone):
            if run.handed_over or not self.has_room(run):
                continue
            if run.scanned.backfill is None:
                self._packs.take(run)
            else:
                backfills.append(run)
        self._turn = (self._turn + _BACKFILLS_A_PASS) % max(1, len(backfills))
        return backfills[self._turn :] + backfills[: self._turn]

    def lags(self, run: LaneRun, upto: int) -> bool:
        """Whether the log has lines that the lane has not looked at."""
        return run.scanned.backfill is not None or run.scanned.position < Position(upto, WHOLE)

    def has_room(self, run: LaneRun) -> bool:
        """Whether the lane may plan on."""
        return run.unfinished <= WINDOW - AT_ONCE and run.rows < self.rows_per_lane

    def _is_full(self, run: LaneRun) -> bool:
        return run.room <= 0 or run.rows >= self.rows_per_lane

    def took_news(self) -> bool:
        """Whether anything was planned since this was asked last."""
        news, self._news = self._news, False
        return news

    def may_go_on(self, run: LaneRun, upto: int) -> bool:
        """Whether planning may find something to do for a lane, now that it was stored."""
        return (run.rows > 0 and run.rows_changed) or (self.lags(run, upto) and self.has_room(run))

    async def unread(self, upto: int) -> int:
        """Lines up to a revision that lanes have yet to look at, of all lanes together."""
        places = self._packs.places()
        places.update(run.scanned.position for run in self._alone)
        unread = await unread_from(self._service.log, places, upto)
        return sum(lanes * unread.behind(place) for place, lanes in places.items())

    # --- the common pass -------------------------------------------------------------------------------------------

    async def _window(self, pack: Pack, ahead: deque[Pack], upto: int, incarnation: str) -> None:
        """One pass over lines after a pack's place; those `ahead` of it join it as it comes by."""
        place = pack.mark.position
        lines = await self._read(place.revision, place.seq, upto)
        self._packs.set_out(pack)
        try:
            for change in lines:
                line = Position(change.revision, change.seq)
                pack = self._packs.met(pack, ahead, line)
                if not pack.runs:
                    return
                await self._line(change, Mark(line, change.hash[:4].hex()), pack, incarnation)
            end = Position(lines[-1].revision if lines else place.revision, WHOLE)
            pack.mark = Mark(end, pack.mark.hash8)
        finally:
            self._packs.arrive(pack)

    async def _line(self, change: Change, mark: Mark, pack: Pack, incarnation: str) -> None:
        """Plan one line for a pack. A lane that cannot take what is for it stays behind."""
        self._stop_for_backfill(change, pack)
        table = self._topology.routes.at(change.revision)
        targets = _Targets(pack.runs)
        for planned in plan(change, None, table, targets, incarnation, self._topology.members):
            run = pack.runs[planned.target]
            if run.scanned.position >= mark.position:
                continue  # it took the line before the stores went away in the middle of it
            if run.handed_over or self._is_full(run):
                run.go_alone(pack.mark)
                continue
            await self._add(run, change, planned, mark)
        pack.mark = mark

    async def _read(self, revision: int, seq: int, upto: int) -> Sequence[Change]:
        """Lines after a place; none only when there are none up to `upto`."""
        if seq != WHOLE:
            lines = await self._block(revision - 1, upto)
            if rest := [line for line in lines if (line.revision, line.seq) > (revision, seq)]:
                return rest
        return await self._block(revision, upto)

    async def _block(self, after: int, upto: int) -> Sequence[Change]:
        """Whole revisions after a revision. What many lanes will come by for is kept."""
        if self._newest is not None and self._newest[0] == after and self._newest[1][-1].revision <= upto:
            return self._newest[1]
        kept = self._blocks.get((after, upto))
        if kept is not None:
            return kept
        lines = await self._service.log.changes(after, AT_ONCE, upto=upto)
        self._blocks[after, upto] = lines
        self._block_bytes += _size(lines)
        while self._block_bytes > _MOST_BLOCK_BYTES and len(self._blocks) > 1:
            self._block_bytes -= _size(self._blocks.pop(next(iter(self._blocks))))
        return lines

    def _stop_for_backfill(self, change: Change, pack: Pack) -> None:
        """A lane that meets the put of a route of its own first sends the state that was there before."""
        if change.namespace != SYSTEM_NAMESPACE:
            return
        if change.op is Op.EVENT:
            self._stop_for_replay(change, pack)
            return
        routes, members, ended = self._topology.routes, self._topology.members, self._topology.gate.ended
        named = starts_backfill(change, routes.at(change.revision), members, routes.at(change.revision - 1), ended)
        # A lane was born with the state of all routes of its target's own revision.
        place = Position(change.revision, change.seq)
        for each in named:
            if each in pack.runs and self._topology.born(each) != change.revision:
                backfill = Backfill(route_uid=named[each], upto=change.revision, at=0)
                pack.runs[each].go_alone(Mark(place, change.hash[:4].hex(), backfill))

    def _stop_for_replay(self, change: Change, pack: Pack) -> None:
        """A lane that meets a replay for it sends that before it goes on."""
        place = Position(change.revision, change.seq)
        for replay in self._topology.gate.replays_at(place):
            self._on_event(change, self._world.now())
            at = Position(replay.since, WHOLE).packed
            backfill = Backfill(route_uid=replay.session_id, upto=replay.until, at=at)
            for address in [each for each in replay.targets if each in pack.runs]:
                pack.runs[address].go_alone(Mark(place, change.hash[:4].hex(), backfill))

    # --- backfills -------------------------------------------------------------------------------------------------

    async def _backfill(self, run: LaneRun, backfill: Backfill, incarnation: str) -> bool:
        """Plan a window of it. Whether the log was read: where no route sends anything there is nothing to read."""
        behind = msgspec.structs.replace(run.scanned, backfill=None)
        older = self._reader_of(run, backfill, incarnation)
        if older is None:
            run.go_alone(behind)
            return False
        begun = unpacked(backfill.at)
        lines = await self._read(begun.revision, begun.seq, backfill.upto - 1)
        for change in lines:
            mark = _at(behind, backfill, Position(change.revision, change.seq))
            planned = await older(change)
            if planned is None:
                run.go_alone(mark)
                continue
            await self._add(run, change, planned, mark)
            if self._is_full(run):
                return True
        run.go_alone(_at(behind, backfill, Position(lines[-1].revision, WHOLE)) if lines else behind)
        return True

    def _reader_of(
        self, run: LaneRun, backfill: Backfill, incarnation: str
    ) -> Callable[[Change], Awaitable[Planned | None]] | None:
        """What is planned of an older line; None when nothing is to be sent any more."""
        replay = self._topology.gate.replays.get(backfill.route_uid)
        if replay is not None:
            repeater = repeater_of(self._service, self._topology, replay, incarnation)
            targets = {run.target.address: run.target}

            async def again(change: Change) -> Planned | None:
                return next(iter(await repeater.planned(change, targets)), None) if repeater else None

            return again if repeater else None
        routes = self._routes_of(run, backfill)
        return partial(self._older, routes=routes, run=run, incarnation=incarnation) if routes else None

    def _routes_of(self, run: LaneRun, backfill: Backfill) -> list[Route]:
        """The routes whose state is sent, as of the backfill's line; those that have gone since send nothing more."""
        then, now = self._topology.routes.at(backfill.upto), self._topology.routes.current().by_uid
        meant = self._topology.means
        return [
            route
            for route in then.to(run.target.address)
            if backfill.route_uid in ("", route.uid)
            and meant(route, run.target.address, backfill.upto)
            and route.uid in now
            and meant(now[route.uid], run.target.address)
        ]

    async def _older(self, change: Change, routes: list[Route], run: LaneRun, incarnation: str) -> Planned | None:
        if change.op is not Op.PUT or not any(not route.kinds or change.kind in route.kinds for route in routes):
            return None
        record = await self._service.records.get(change.key)
        for route in routes:
            if (planned := plan_backfill(change, record, route, run.target, incarnation)) is not None:
                return planned
        return None

    # --- one planned line ------------------------------------------------------------------------------------------

    async def _add(self, run: LaneRun, change: Change, planned: Planned, mark: Mark) -> None:
        blocked = await self._is_blocked(run, change.key)
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
            replay_of=planned.replay_of,
        )
        self._news = True
        if change.op is Op.EVENT and not planned.replay_of and change is not self._announced:
            self._announced = change
            self._on_event(change, self._world.now())
        if planned.after:
            delivery = self._as_hop(delivery, planned, mark)
        delivery = self._topology.gate.judged(delivery)
        behind = "waits behind an earlier change of the same record" if blocked else ""
        run.add(delivery, change, mark, delivery.reason or (WAITS if run.closed(now) else behind))

    def _as_hop(self, delivery: Delivery, planned: Planned, mark: Mark) -> Delivery:
        """A later hop of a chain is kept back until the earlier ones have the line. Who is past this lane's own place
        has seen the line for certain, in a backfill too."""
        targets = self._topology.targets
        lanes = tuple(targets[address].uid for address in planned.after if address in targets)
        if not lanes:
            return delivery
        self._topology.gate.chained = True
        at = delivery.position if mark.backfill is None else mark.position
        before = next(address for address in reversed(planned.after) if address in targets)
        return msgspec.structs.replace(
            delivery,
            keep=Keep.AFTER,
            waits_for=WaitsFor(lanes=lanes, at=at.packed, skip=planned.skips),
            reason=f"after {before.removeprefix(f'{SYSTEM_NAMESPACE}/')}",
        )

    async def _is_blocked(self, run: LaneRun, key: Key) -> bool:
        """Whether a change that this one waits for has a live row, one that is being stored just now included."""
        if run.lane.order is Order.NONE:
            return False
        if run.lane.order is Order.STRICT:
            return run.rows > 0
        while run.rows:
            version = run.row_version
            if run.has_unstored(key) or self.outbox.blocks(run.lane.lane_id, key):
                return True
            stored = await self._store.blocked_keys(run.lane.lane_id, [key])
            if version == run.row_version:
                return bool(stored)
        return False


def _at(behind: Mark, backfill: Backfill, position: Position) -> Mark:
    return msgspec.structs.replace(behind, backfill=msgspec.structs.replace(backfill, at=position.packed))


def _size(lines: Sequence[Change]) -> int:
    return sum(len(line.body or b"") + 500 for line in lines)
