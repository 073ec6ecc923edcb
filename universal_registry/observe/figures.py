"""What can be said of a running registry in numbers: for the metrics file, and for whoever scrapes `/metrics`.

Nothing is counted here: the numbers are those of the stores, the engine, the workers and the transports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from universal_registry.kernel.errors import RegistryError
from universal_registry.log.change import Change
from universal_registry.log.horizon import Horizon
from universal_registry.observe.denials import Denials
from universal_registry.observe.health import Health, WorkerState
from universal_registry.observe.metrics import Gauges
from universal_registry.propagation.lanes.lane import WHOLE, Lane, Position
from universal_registry.propagation.lanes.outcome_counts import Tally
from universal_registry.propagation.ports import LaneCommands, LaneQueries, LaneStore
from universal_registry.propagation.views.inventory import EngineView, Inventory, take_inventory
from universal_registry.registry.consumers import Consumer
from universal_registry.registry.service import RegistryService

_MOST_LOOKED_UP = 200


class Lanes(LaneStore, LaneQueries, LaneCommands, Protocol):
    """The propagation store."""


class TargetFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One target. `lag_revisions`: what its lane has not looked at to the end. `lag_seconds`: the age of the oldest
    change that it does not have. `oldest_seconds`: the age of its oldest delivery that has not ended. `held`: nothing
    is sent now."""

    target: str
    lag_revisions: int
    lag_seconds: float
    oldest_seconds: float
    breaker: str
    held: bool
    in_flight: int = 0
    waiting: int
    dead: int
    delivered: int


class WatchFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The watches of this process. `slowest`: the revision that the slowest has come to (None: there is none).
    Since the start: events `sent`, and watches `dropped` for being too slow."""

    watchers: int = 0
    slowest: int | None = None
    sent: int = 0
    dropped: int = 0


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """What compaction has taken from the change log since the start: values and lines."""

    values: int = 0
    lines: int = 0


class PeerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One peer. `behind`: positions of our feed that it has not acknowledged; `in_sync`: both hold the same, shown by
    one root."""

    peer: str
    linked: bool
    in_sync: bool
    behind: int
    conflicts: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `stored`: what comes from the stores; None when they do not answer."""

    store: str
    db: bool
    ready: bool
    stored: Stored | None
    tally: Tally
    workers: Sequence[WorkerState]
    denials: int
    watches: WatchFigures = WatchFigures()
    streams: int = 0
    compacted: Compacted = Compacted()
    backup_age: float | None = None
    """Seconds since the newest scheduled backup; None where there is none, or none can be seen."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the stores and the engine know."""

    gauges: Gauges
    revision: int
    dead: int
    targets: tuple[TargetFigures, ...]
    consumers: Mapping[str, int] = {}
    """The revisions that each named consumer has not acknowledged."""
    peers: tuple[PeerFigures, ...] = ()
    origins: Mapping[str, int] = {}
    """By node, how many of its changes are elsewhere and not here."""
    horizon: Horizon = Horizon()


class FiguresReader:
    """Reads them."""

    def __init__(
        self,
        service: RegistryService,
        lanes: Lanes,
        engine: EngineView,
        health: Health,
        tally: Tally,
        denials: Denials,
        *,
        store: str,
        under_way: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`under_way`: lane id -> attempts under way; of no lane where no engine runs."""
        self._service = service
        self._lanes = lanes
        self._engine = engine
        self._health = health
        self._tally = tally
        self._denials = denials
        self._store = store
        self._under_way = under_way
        self.watches: Callable[[], WatchFigures] = WatchFigures
        self.consumers: Callable[[], Awaitable[Sequence[Consumer]]] | None = None
        """Told by whoever has them: how the watches do, and the named consumers."""
        self.streams: Callable[[], int] = int
        """How many streams are open."""
        self.peers: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
        """What `GET /v1/-/peers` answers."""
        self.compacted: Callable[[], Compacted] = Compacted
        self.backup_age: Callable[[], float | None] = lambda: None
        self.backup_trouble: Callable[[], str] = str
        """Why the scheduled backup that is due is not there, in one line."""

    async def gauges(self) -> Gauges:
        """Those of the metrics file. Raises StorageUnavailable, Corrupt."""
        depth = await self._lanes.depth()
        lag = max(0, await self._engine.lag())  # every lane's transport is a webhook, for now
        return Gauges(
            db=(await self._health.db()).ok,
            queue_depth=depth.queue_depth + lag,
            webhooks_pending=depth.webhooks_pending + lag,
            counters=depth.counters,
        )

    async def read(self) -> Figures:
        """All of them, also while a database is gone."""
        found = await self._health.ready()
        try:
            stored = await self._stored()
        except RegistryError:
            stored = None
        return Figures(
            store=self._store,
            db=stored is not None and stored.gauges.db,
            ready=found.ok,
            stored=stored,
            tally=self._tally,
            workers=self._health.workers(),
            denials=self._denials.total,
            watches=self.watches(),
            streams=self.streams(),
            compacted=self.compacted(),
            backup_age=self.backup_age(),
        )

    async def _stored(self) -> Stored:
        gauges, depth = await self.gauges(), await self._lanes.depth()
        inventory = await take_inventory(self._service, self._lanes, self._engine)
        head = await self._service.log.head()
        revision = head.revision
        named = await self.consumers() if self.consumers else ()
        waiting = {each.name: revision - each.place.revision for each in named if each.place[0] == head.incarnation}
        linked = await self.peers() if self.peers else {}
        oldest, under_way = await self._lanes.oldest(), self._under_way()
        behind = {inventory.position(lane) for lane in inventory.lanes.values()}
        planned_from = await self._times(sorted(each for each in behind if each.whole < revision))
        targets = []
        for address in sorted(inventory.targets):
            lane = inventory.lane(address)
            found = _target(inventory, address, lane, revision, oldest, planned_from)
            flying = under_way.get(lane.lane_id, 0) if lane else 0
            targets.append(replace(found, in_flight=flying) if flying else found)
        return Stored(
            gauges=gauges, revision=revision, dead=depth.dead, targets=tuple(targets), consumers=waiting,
            peers=tuple(map(_peer, linked.get("items", ()))),
            origins={each["node"]: each["lag"] for each in linked.get("origins", ())},
            horizon=await self._service.log.horizon(),
        )  # fmt: skip

    async def _times(self, positions: Sequence[Position]) -> dict[Position, datetime]:
        """When the line after each position was written. Many lanes stand at the same few; of many places the oldest
        are looked up, and the others are behind by less."""
        found = {}
        for position in positions[:_MOST_LOOKED_UP]:
            line = await self._after(position)
            if line is not None:
                found[position] = datetime.fromisoformat(line.at)
        return found

    async def _after(self, position: Position) -> Change | None:
        if position.seq != WHOLE and (line := await self._service.log.line(position.revision, position.seq + 1)):
            return line
        return await self._service.log.line(position.revision + 1, 0)


def _peer(item: Mapping[str, Any]) -> PeerFigures:
    return PeerFigures(
        peer=item["peer"],
        linked=item["state"] in ("syncing", "in_sync", "conflicted"),
        in_sync=item["state"] in ("in_sync", "conflicted"),
        behind=item["behind"],
        conflicts=item["conflicts"],
    )


def _target(
    inventory: Inventory,
    address: str,
    lane: Lane | None,
    revision: int,
    oldest: Mapping[str, datetime],
    planned_from: Mapping[Position, datetime],
) -> TargetFigures:
    held = bool(inventory.held(address))
    if lane is None:
        return TargetFigures(
            target=address, lag_revisions=0, lag_seconds=0.0, oldest_seconds=0.0, breaker="closed", held=held,
            waiting=0, dead=0, delivered=0,
        )  # fmt: skip
    position = inventory.position(lane)
    row, line = oldest.get(lane.lane_id), planned_from.get(position)
    ages = [max(0.0, (inventory.now - moment).total_seconds()) for moment in (row, line) if moment is not None]
    return TargetFigures(
        target=address,
        lag_revisions=max(0, revision - position.whole),
        lag_seconds=max(ages, default=0.0),
        oldest_seconds=ages[0] if row is not None else 0.0,
        breaker=lane.breaker.value,
        held=held,
        waiting=lane.rows,
        dead=lane.dead,
        delivered=lane.delivered,
    )
