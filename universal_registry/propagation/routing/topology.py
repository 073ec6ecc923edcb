"""The targets and routes in force, as the log tells them, and the lanes that they call for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Head
from universal_registry.propagation.lanes.lane import Backfill, Lane, Position
from universal_registry.propagation.routing.audience import Members, facts_of
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.route import Route, RouteHistory
from universal_registry.propagation.routing.session_gate import Gate
from universal_registry.propagation.routing.target import KIND as TARGET_KIND
from universal_registry.propagation.routing.target import Target, parse_target
from universal_registry.registry.record import Record, decode_record
from universal_registry.registry.service import RegistryService

NEWEST = 1 << 62
"""As a revision: whatever comes last."""


class Topology:
    """Follows the lines about endpoints and policies in `system`. `targets`: by address, as of the newest line read.

    `members`: who was a target when, for the routes that mean all but some. `gate`: what was said about sessions.
    """

    def __init__(self, service: RegistryService) -> None:
        self._service = service
        self.routes = RouteHistory(service.catalogue)
        self.members = Members()
        self.gate = Gate()
        self.targets: dict[str, Target] = {}
        self._born: dict[str, tuple[Position, str]] = {}

    async def load(self) -> None:
        """Read all that the log says about them."""
        for kind in (ROUTE_KIND, TARGET_KIND):
            for change in await self._service.log.lines_of_kind(kind, SYSTEM_NAMESPACE):
                self.follow(change)

    def follow(self, change: Change) -> bool:
        """Take a line into account; True when targets or routes changed."""
        if change.namespace != SYSTEM_NAMESPACE:
            return False
        if change.op is Op.EVENT:
            if change.kind == ROUTE_KIND:
                self.gate.follow(change)
            return False
        if change.kind == ROUTE_KIND:
            return self.routes.add(change)
        if change.kind == TARGET_KIND:
            return self._target(change)
        return False

    def _target(self, change: Change) -> bool:
        address = f"{change.namespace}/{change.name}"
        before, target, facts = self.targets.get(address), None, None
        if change.op is Op.PUT and change.body is not None:
            record = decode_record(change.body)
            target = read_target(self._service, record)
            facts = facts_of(record) if target else None
        moved = self.members.set(address, change.revision, facts)
        if target is None:
            self.targets.pop(address, None)
            return before is not None
        if before is None or before.uid != target.uid:
            self._born[address] = (Position(change.revision, change.seq), change.hash[:4].hex())
        self.targets[address] = target
        return target != before or moved

    def forget_before(self, revision: int, backfills: Collection[str]) -> None:
        """Drop what no lane at or beyond `revision` can ask for; `backfills`: of the routes and replays that lanes are
        sending the state of."""
        self.routes.forget_before(revision)
        self.gate.forget_before(revision, backfills)

    def means(self, route: Route, address: str, revision: int | None = None) -> bool:
        """Whether the route went to the target at a revision, or goes to it as far as the log was read."""
        if not route.follow:
            return address in route.targets
        return self.members.includes(route.audience, address, NEWEST if revision is None else revision)

    def meant(self, route: Route) -> tuple[str, ...]:
        """The targets that the route goes to, as far as the log was read; of a two-way route its other sides."""
        return tuple(self.members.meant(route.audience, NEWEST)) if route.follow else route.targets or route.peers

    def born(self, address: str) -> int | None:
        """The revision at which the target became one."""
        return self._born[address][0].revision if address in self._born else None

    def new_lane(self, target: Target, head: Head) -> Lane:
        """The lane of a target that has none: it begins where the target did, with the state of all routes to it then.

        What a target of the same name had before is none of its business.
        """
        position, hash8 = self._born[target.address]
        return Lane(
            lane_id=target.uid,
            target_uid=target.uid,
            target_namespace=target.namespace,
            target_name=target.name,
            transport=target.transport,
            incarnation=head.incarnation,
            position=position,
            hash8=hash8,
            backfill=Backfill(route_uid="", upto=position.revision, at=0),
        )


def read_target(service: RegistryService, record: Record) -> Target | None:
    """The target that a record describes, its signing secret in clear; None when it describes none.

    One whose seal does not open is a target with a fault: its lane is held, and says why.
    """
    try:
        return parse_target(record, service.reveal(record))
    except Corrupt as error:
        target = parse_target(record, service.shown(record).spec)
        return replace(target, secret=None, fault=str(error)) if target is not None else None


def targets_without_lane(targets: dict[str, Target], lanes: Sequence[Lane]) -> list[Target]:
    """The targets for which a lane must be made."""
    known = {lane.target_uid for lane in lanes}
    return [target for target in targets.values() if target.uid not in known]
