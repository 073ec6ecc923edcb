"""Sending again what a session sent before: the lines that it covers, in new deliveries that say what they repeat."""

from __future__ import annotations

from collections.abc import Mapping

from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.log.change import Change, Op
from universal_registry.propagation.routing.plan import Planned, delivery_id, event_of
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.route import Route
from universal_registry.propagation.routing.session_gate import Replay
from universal_registry.propagation.routing.target import Target
from universal_registry.propagation.routing.topology import Topology
from universal_registry.registry.record import decode_record
from universal_registry.registry.selector import Selector, parse_selector
from universal_registry.registry.service import RegistryService

_MOST_VERSIONS = 1000


class Repeater:
    """Plans the deliveries of one replay, line by line. Of a record only its newest line is sent: that is its state."""

    def __init__(self, service: RegistryService, replay: Replay, route: Route | None, incarnation: str) -> None:
        self._service = service
        self._replay = replay
        self._route = route
        self._incarnation = incarnation
        self._select: Selector | None = parse_selector(replay.select, service.catalogue) if replay.select else None
        self._versions: list[int] | None = None

    async def planned(self, change: Change, targets: Mapping[str, Target]) -> list[Planned]:
        """The deliveries of a line to those of the targets that the replay is for; none when it is not part of it."""
        named = {address: target for address, target in targets.items() if address in self._replay.targets}
        if change.op is Op.EVENT:
            event = event_of(change)
            if event.session != self._replay.of or not event.audience:
                return []
            return [self._of(change, target, "", 0) for address, target in named.items() if address in event.audience]
        if self._route is None or not named or not await self._covers(change):
            return []
        revision = await self._route_revision(change.revision)
        return [self._of(change, target, self._route.uid, revision) for target in named.values()]

    async def _covers(self, change: Change) -> bool:
        assert self._route is not None
        if change.body is None or (self._route.kinds and change.kind not in self._route.kinds):
            return False
        record = decode_record(change.body)
        if not self._route.takes(change, record) or (self._select and not self._select.matches(record)):
            return False
        newest = await self._service.log.history(change.key, 1, events=False)
        return bool(newest) and (newest[0].revision, newest[0].seq) == (change.revision, change.seq)

    async def _route_revision(self, revision: int) -> int:
        """The route's version when the line was sent first; a line from before it went out when the route was made."""
        assert self._route is not None
        if self._versions is None:
            key = Key(ROUTE_KIND, SYSTEM_NAMESPACE, self._route.name)
            lines = await self._service.log.history(key, _MOST_VERSIONS, events=False)
            self._versions = sorted(line.revision for line in lines if line.uid == self._route.uid)
        then = [each for each in self._versions if each <= revision]
        return then[-1] if then else self._versions[0]

    def _of(self, change: Change, target: Target, route_uid: str, route_revision: int) -> Planned:
        place = (self._incarnation, change.revision, change.seq)
        return Planned(
            target=target.address,
            route_uid=route_uid,
            session_id=self._replay.session_id,
            delivery_id=delivery_id(*place, f"replay:{self._replay.session_id}", 0, target.uid),
            replay_of=delivery_id(*place, route_uid, route_revision, target.uid),
        )


def repeater(service: RegistryService, topology: Topology, replay: Replay, incarnation: str) -> Repeater | None:
    """For a replay that lanes have come to; None when it was cancelled meanwhile."""
    if replay.session_id in topology.gate.ended:
        return None
    return Repeater(service, replay, topology.routes.current().by_uid.get(replay.of), incarnation)
