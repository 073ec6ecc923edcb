"""One reading of everything that propagates: targets, routes and lanes as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec.structs import replace

from universal_registry.kernel.errors import Invalid, NotFound
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation import breaker
from universal_registry.propagation.lane import Lane, Position
from universal_registry.propagation.ports import LaneStore
from universal_registry.propagation.route import CLASSIFICATION, RouteTable, full_address, parse_route
from universal_registry.propagation.route import KIND as ROUTE_KIND
from universal_registry.propagation.target import KIND as TARGET_KIND
from universal_registry.propagation.target import Target, shell_word
from universal_registry.propagation.topology import read_target
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.service import RegistryService
from universal_registry.registry.words import near

_PAGE = 1000
UNKNOWN_LAG = -1


class EngineView(Protocol):
    """What control asks of the engine. Nobody wakes it here: it listens to the commits of the registry."""

    def positions(self) -> Mapping[str, Position]:
        """Lane id -> how far it has come beyond what is stored: what lies at or below is delivered, or stands in a
        stored row. Lanes of which it knows no more than the store are left out."""
        ...

    def lag(self) -> int:
        """Deliveries that are planned or still to be planned, and have no row; UNKNOWN_LAG: no engine runs here."""
        ...


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """Targets and their records by address, the routes in force, lanes by target uid, and what is wrong with routes
    (name -> why). The secrets of the targets are left out."""

    targets: dict[str, Target]
    records: dict[str, Record]
    table: RouteTable
    route_records: dict[str, Record]
    faults: dict[str, str]
    lanes: dict[str, Lane]
    positions: dict[str, Position]
    now: datetime

    def lane(self, address: str) -> Lane | None:
        """The lane of a target; None while there is none."""
        target = self.targets.get(address)
        return self.lanes.get(target.uid) if target else None

    def position(self, lane: Lane) -> Position:
        """How far the lane has come: what is stored, or what the engine knows beyond it."""
        return max(lane.position, self.positions.get(lane.lane_id, lane.position))

    def held(self, address: str) -> str:
        """Why nothing is sent to the target now; empty when it is. The breaker counts."""
        target, lane = self.targets.get(address), self.lane(address)
        if target is None:
            name = address.removeprefix(f"{SYSTEM_NAMESPACE}/")
            return f"no such target: ureg target add {shell_word(name)} URL"
        return target.held or (breaker.may_send(lane, self.now) if lane else "")

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

    def guesses(self, address: str) -> list[str]:
        """Names of known targets near a mistyped one."""
        return near(_name(address), tuple(_name(known) for known in self.targets))


def _name(address: str) -> str:
    return address.removeprefix(f"{SYSTEM_NAMESPACE}/")


async def take_inventory(service: RegistryService, store: LaneStore, engine: EngineView) -> Inventory:
    """Read all of it now."""
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
    return Inventory(
        targets={target.address: target for target, _ in targets if target},
        records={target.address: record for target, record in targets if target},
        table=RouteTable(tuple(routes)),
        route_records={record.name: record for record in policies},
        faults=faults,
        lanes={lane.target_uid: lane for lane in await store.lanes()},
        positions=dict(engine.positions()),
        now=service.world.now(),
    )


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
    return None if target is None else replace(target, secret=None)
