"""The targets and routes in force, as the log tells them, and the lanes that they call for."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Head
from universal_registry.propagation.lane import WHOLE, Lane, Position
from universal_registry.propagation.route import KIND as ROUTE_KIND
from universal_registry.propagation.route import RouteHistory
from universal_registry.propagation.target import KIND as TARGET_KIND
from universal_registry.propagation.target import Target, parse_target
from universal_registry.registry.record import decode_record
from universal_registry.registry.service import RegistryService


class Topology:
    """Follows the lines about endpoints and policies in `system`. `targets`: by address, as of the newest line read."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service
        self.routes = RouteHistory(service.catalogue)
        self.targets: dict[str, Target] = {}
        self.faults: dict[str, str] = {}

    async def load(self) -> None:
        """Read all that the log says about them."""
        for kind in (ROUTE_KIND, TARGET_KIND):
            for change in await self._service.log.lines_of_kind(kind, SYSTEM_NAMESPACE):
                self.follow(change)

    def follow(self, change: Change) -> bool:
        """Take a line into account; True when targets or routes changed."""
        if change.namespace != SYSTEM_NAMESPACE or change.op is Op.EVENT:
            return False
        if change.kind == ROUTE_KIND:
            return self.routes.add(change)
        if change.kind == TARGET_KIND:
            return self._target(change)
        return False

    def _target(self, change: Change) -> bool:
        address = f"{change.namespace}/{change.name}"
        target = None
        if change.op is Op.PUT and change.body is not None:
            record = decode_record(change.body)
            try:
                target = parse_target(record, self._service.reveal(record))
            except Corrupt as error:
                self.faults[address] = str(error)
        before = self.targets.get(address)
        if target is None:
            self.targets.pop(address, None)
            return before is not None
        self.faults.pop(address, None)
        self.targets[address] = target
        return target != before

    def new_lane(self, target: Target, head: Head) -> Lane:
        """The lane of a target that has none: it starts before whatever first concerned the target."""
        first_route = self.routes.first_revision(target.address) or target.created_revision
        start = min(first_route, target.created_revision) - 1
        return Lane(
            lane_id=target.uid,
            target_uid=target.uid,
            target_namespace=target.namespace,
            target_name=target.name,
            transport=target.transport,
            incarnation=head.incarnation,
            position=Position(start, WHOLE),
        )


def targets_without_lane(targets: dict[str, Target], lanes: Sequence[Lane]) -> list[Target]:
    """The targets for which a lane must be made."""
    known = {lane.target_uid for lane in lanes}
    return [target for target in targets.values() if target.uid not in known]
