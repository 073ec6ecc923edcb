"""One reading of everything that propagates: targets, routes and lanes as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec.structs import replace

from universal_registry.kernel.errors import Invalid, NotFound
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes import breaker, retry_budget
from universal_registry.propagation.lanes.lane import WHOLE, Delivery, DeliveryState, Keep, Lane, Position
from universal_registry.propagation.lanes.lane_command import ON_DELIVERIES, obeyed
from universal_registry.propagation.ports import LaneCommands, LaneStore
from universal_registry.propagation.routing.audience import Facts, facts_of
from universal_registry.propagation.routing.counterparts import Counterpart, Counterparts, nobody
from universal_registry.propagation.routing.route import CLASSIFICATION, RouteTable, full_address, parse_route
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.target import KIND as TARGET_KIND
from universal_registry.propagation.routing.target import Target
from universal_registry.propagation.routing.topology import read_target
from universal_registry.propagation.routing.unread import Unread, unread_from
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.service import RegistryService
from universal_registry.registry.words import near, shell_word

_PAGE = 1000
UNKNOWN_LAG = -1
_BEGINNING = Position(0, WHOLE)
_RULES = RetrySettings()


class EngineView(Protocol):
    """What control asks of the engine. Nobody wakes it here: it listens to the commits of the registry."""

    def positions(self) -> Mapping[str, Position]:
        """Lane id -> how far it has come beyond what is stored: what lies at or below is delivered, or stands in a
        stored row. Lanes of which it knows no more than the store are left out."""
        ...

    def look(self) -> None:
        """A command was given to a lane."""
        ...

    async def lag(self) -> int:
        """Deliveries that are planned and have no row, and lines that lanes have yet to look at (see `Unread`);
        UNKNOWN_LAG: no engine runs here."""
        ...


class NoEngine:
    """For those who only read: nothing is sent, so nothing is under way."""

    def positions(self) -> Mapping[str, Position]:
        """None but those in the store."""
        return {}

    def look(self) -> None:
        """Whoever runs an engine finds the command."""

    async def lag(self) -> int:
        """Not known without reading the log; a daemon or a driven command knows it."""
        return UNKNOWN_LAG


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """Targets and their records by address, the routes in force, lanes by target uid, and what is wrong with routes
    (name -> why). `head`: the newest revision. The secrets of the targets are left out. A route that follows stands
    here with the targets of now. `unread`: counts the lines that lanes have yet to look at. `counterparts`: the peers,
    by name. `retry`: the rules that retries follow."""

    targets: dict[str, Target]
    records: dict[str, Record]
    table: RouteTable
    route_records: dict[str, Record]
    faults: dict[str, str]
    lanes: dict[str, Lane]
    positions: dict[str, Position]
    now: datetime
    head: int = 0
    unread: Unread = Unread()
    counterparts: Mapping[str, Counterpart] = {}
    retry: RetrySettings = _RULES

    def lane(self, address: str) -> Lane | None:
        """The lane of a target; None while there is none."""
        target = self.targets.get(address)
        return self.lanes.get(target.uid) if target else None

    def position(self, lane: Lane) -> Position:
        """How far the lane has come: what is stored, or what the engine knows beyond it."""
        return max(lane.position, self.positions.get(lane.lane_id, lane.position))

    def place(self, address: str) -> Position:
        """How far the log has been read for a target."""
        lane = self.lane(address)
        return _BEGINNING if lane is None else self.position(lane)

    def held(self, address: str) -> str:
        """Why nothing is sent to the target now; empty when it is. The breaker counts."""
        target, lane = self.targets.get(address), self.lane(address)
        if target is None:
            name = address.removeprefix(f"{SYSTEM_NAMESPACE}/")
            return f"no such target: ureg target add {shell_word(name)} URL"
        return target.held or (breaker.may_send(lane, self.now) if lane else "")

    def slowed(self, address: str) -> str:
        """Why nothing that failed before is sent to the target now, though what is new is; empty when it is."""
        lane = self.lane(address)
        if lane is None or not lane.rows or self.held(address):
            return ""
        return retry_budget.used_up(lane.guard, self.retry, self.now)

    def lane_of(self, row: Delivery) -> Lane | None:
        """The lane that a delivery is in."""
        lane = self.lanes.get(row.lane_id)  # a lane has the id of its target
        return lane if lane is not None and lane.lane_id == row.lane_id else None

    def stands(self, row: Delivery) -> tuple[str, datetime | None]:
        """Why a delivery has not arrived, and when it is tried next (None: unknown). What keeps its target back now is
        said rather than what kept it when the row was stored, and nothing is tried before that ends."""
        lane = self.lane_of(row)
        if lane is None or row.keep is not Keep.NONE or row.state not in (DeliveryState.PENDING, DeliveryState.WAITING):
            return row.reason, row.next_at
        address = f"{lane.target_namespace}/{lane.target_name}"
        if held := self.held(address):
            opens = breaker.opens_at(lane, self.now)
            return held, opens if opens is None or row.next_at is None else max(opens, row.next_at)
        slowed, again = self.slowed(address), retry_budget.retry_at(lane.guard, self.retry, self.now)
        if row.attempts and slowed and (row.next_at is None or row.next_at <= again):
            return f"{row.reason}; {slowed}" if row.reason else slowed, again
        return row.reason, row.next_at

    def require(self, text: str) -> str:
        """The address of a known target. Raises NotFound with what may have been meant."""
        address = full_address(text)
        if address in self.targets:
            return address
        guesses = self.guesses(address)
        raise NotFound(
            f"there is no target {text!r:.80}",
            hint=f"did you mean {guesses[0]!r}?" if guesses else "see: ureg target ls",
            did_you_mean=guesses,
        )

    def facts(self) -> dict[str, Facts]:
        """What exclusions go by, of each target."""
        return {address: facts_of(record) for address, record in self.records.items()}

    def guesses(self, address: str) -> list[str]:
        """Names of known targets near a mistyped one."""
        return near(_name(address), tuple(_name(known) for known in self.targets))


def _name(address: str) -> str:
    return address.removeprefix(f"{SYSTEM_NAMESPACE}/")


class Lanes(LaneStore, LaneCommands, Protocol):
    """The part of the propagation store that is read here."""


async def take_inventory(
    service: RegistryService,
    store: Lanes,
    engine: EngineView,
    counterparts: Counterparts = nobody,
    retry: RetrySettings = _RULES,
) -> Inventory:
    """Read all of it now. Lanes stand there as they will be once they have done what they were told. `retry`: the rules
    in force, for whoever asks when something is tried again."""
    endpoints = await _all(service, TARGET_KIND)
    targets = [(_without_secret(read_target(service, record)), record) for record in endpoints]
    policies = [record for record in await _all(service, ROUTE_KIND) if record.classification == CLASSIFICATION]
    routes, faults = [], {}
    for record in policies:
        try:
            route = parse_route(record, service.catalogue)
        except Invalid as error:
            faults[record.name] = str(error)
        else:
            routes += [route] if route else []
    facts = {target.address: facts_of(record) for target, record in targets if target}
    routes = [replace(each, targets=each.audience.parted(facts)[0]) if each.follow else each for each in routes]
    found = Inventory(
        targets={target.address: target for target, _ in targets if target},
        records={target.address: record for target, record in targets if target},
        table=RouteTable(tuple(routes)),
        route_records={record.name: record for record in policies},
        faults=faults,
        lanes=await _lanes(store, service.world.now()),
        positions=dict(engine.positions()),
        now=service.world.now(),
        head=(await service.log.head()).revision,
        counterparts=await counterparts(),
        retry=retry,
    )
    places = [found.place(address) for address in found.table.by_target if address in found.targets]
    return replace(found, unread=await unread_from(service.log, places, found.head))


async def _lanes(store: Lanes, now: datetime) -> dict[str, Lane]:
    commands = await store.commands()  # before the lanes: what is done meanwhile is done twice here, not missed
    lanes = {lane.lane_id: lane for lane in await store.lanes()}
    for command in commands:
        if command.lane_id in lanes and command.action not in ON_DELIVERIES:
            lanes[command.lane_id] = obeyed(lanes[command.lane_id], command, now)
    return {lane.target_uid: lane for lane in lanes.values()}


async def _all(service: RegistryService, kind: str) -> list[Record]:
    found: list[Record] = []
    page: str | None = None
    while True:
        answer = await service.list(Selector(kinds=(kind,), namespaces=(SYSTEM_NAMESPACE,)), limit=_PAGE, page=page)
        found.extend(answer.records)
        if answer.next is None:
            return found
        page = answer.next


def _without_secret(target: Target | None) -> Target | None:
    hidden = dict.fromkeys(("secret", "previous_secret", "seal_key", "previous_seal_key"))
    return None if target is None else replace(target, **hidden)
