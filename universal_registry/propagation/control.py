"""Propagation as the fronts see it: targets, routes, sessions, arrival, status. Answers are plain data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

from universal_registry.kernel.errors import Invalid, NotFound, PreconditionFailed
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.propagation.arrival import arrivals
from universal_registry.propagation.inventory import EngineView, Inventory, take_inventory
from universal_registry.propagation.ports import LaneQueries, LaneStore, Transport
from universal_registry.propagation.propagate import Propagation, check_mode
from universal_registry.propagation.sessions import all_sessions, one_session
from universal_registry.propagation.status import status_of
from universal_registry.propagation.targets import TargetAddition, add_route, send_test
from universal_registry.propagation.views import attempt_view, delivery_view, route_view, target_view
from universal_registry.registry.once import Once
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.words import near, shown

MOST_DELIVERIES = 1000
_LOOKS = 3


class Lanes(LaneStore, LaneQueries, Protocol):
    """The propagation store, as the engine writes it and people read it."""


class PropagationControl:
    """Every verb on propagation. It writes records and event lines only: what follows from them is the engine's.

    `once_key`, on those that write: as `once` of the registry's verbs; the answer kept is that of the verb here.
    """

    def __init__(
        self,
        service: RegistryService,
        lanes: Lanes,
        transports: Mapping[str, Transport],
        engine: EngineView,
        world: World,
        settings: Settings,
        *,
        store_name: str = "sqlite",
    ) -> None:
        self._service = service
        self._lanes = lanes
        self._transports = transports
        self._engine = engine
        self._world = world
        self._settings = settings
        self._store_name = store_name

    async def _inventory(self) -> Inventory:
        return await take_inventory(self._service, self._lanes, self._engine)

    # --- targets and routes --------------------------------------------------------------------------------------

    async def add_target(
        self,
        name: str,
        url: str,
        *,
        namespace: str = SYSTEM_NAMESPACE,
        network: str | None = None,
        select: str | None = None,
        secret: str | None = None,
        insecure_http: bool = False,
        actor: Actor,
        once_key: Once | None = None,
    ) -> dict[str, Any]:
        """Make a target, give a declared one its address, or move one; with `select` also a route of the same name.

        `target`, `result` (created | updated | unchanged), `revision`, `url`, `network`, `route`, `notes`, `warnings`,
        and `secret` when one was made for it: shown here and never again. The same name and URL again change nothing.
        """
        if namespace != SYSTEM_NAMESPACE:
            raise Invalid(f"targets stand in namespace {SYSTEM_NAMESPACE}, not {shown(namespace)}", path="namespace")

        async def add() -> dict[str, Any]:
            addition = TargetAddition(self._service, await self._inventory(), name, url, actor=actor, once=once_key)
            return await addition.run(network=network, select=select, secret=secret, insecure_http=insecure_http)

        return await self._repeated(add)

    async def targets(self) -> list[dict[str, Any]]:
        """All targets with the state of their lanes, by address."""
        inventory = await self._inventory()
        return [target_view(inventory, address) for address in sorted(inventory.targets)]

    async def target(self, namespace: str, name: str) -> dict[str, Any]:
        """One target. Raises NotFound with "did you mean"."""
        inventory = await self._inventory()
        return target_view(inventory, inventory.require(f"{namespace}/{name}"))

    async def test_target(self, namespace: str, name: str, *, show: bool = False) -> dict[str, Any]:
        """Send one test event now and report: `target`, `delivered`, `outcome`, `status`, `reason`, `milliseconds`, and
        with `show` the exact `request`. Nothing is recorded, and neither pause nor breaker is asked."""
        inventory = await self._inventory()
        address = inventory.require(f"{namespace}/{name}")
        head = await self._service.log.head()
        record, retry = inventory.records[address], self._settings.retry
        return await send_test(self._service, self._transports, record, head.incarnation, retry, show=show)

    async def add_route(
        self,
        name: str,
        select: str,
        targets: list[str],
        *,
        secrets: str = "redact",
        actor: Actor,
        once_key: Once | None = None,
    ) -> dict[str, Any]:
        """Make or change the route: what the selector matches goes to each target, all of which must be known."""
        inventory = await self._inventory()
        return await add_route(
            self._service, inventory, name, select, targets, secrets=secrets, actor=actor, once=once_key
        )

    async def routes(self) -> list[dict[str, Any]]:
        """All routes in force, by name; one that cannot be followed stands there with its `fault`."""
        inventory = await self._inventory()
        views = [route_view(route) for route in inventory.table.routes]
        views += [{"route": name, "fault": fault} for name, fault in inventory.faults.items()]
        return sorted(views, key=lambda view: str(view["route"]))

    # --- propagating ---------------------------------------------------------------------------------------------

    async def propagate(
        self,
        mode: str,
        source: str,
        target: str,
        data: Any = None,
        *,
        once: bool = False,
        strict: bool = False,
        actor: Actor,
        once_key: Once | None = None,
    ) -> dict[str, Any]:
        """The command "T gets S". Without data: the standing session (the state now, each change later), found again
        on a repeat. With data (any JSON value but null): that as a one-shot event. `once`: the state now, once.

        `session`, `mode`, `standing`, `source`, `targets`, `route`, `revision`, `changed`, `notes`, `warnings`, and
        `secret` when a target at a URL was made. `strict`: NotFound, before anything is stored, for an unknown source
        or a target without an address.
        """
        check_mode(mode)

        async def propagate() -> dict[str, Any]:
            inventory = await self._inventory()
            propagation = Propagation(self._service, inventory, mode=mode, actor=actor, once=once_key)
            return await propagation.run(source, target, data, once=once, strict=strict)

        return await self._repeated(propagate)

    async def _repeated(self, act: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The answer of a write that may cross another's write of the same target: then it looks again."""
        for _ in range(_LOOKS - 1):
            try:
                return await act()
            except PreconditionFailed:
                continue
        return await act()

    async def sessions(self) -> list[dict[str, Any]]:
        """All sessions, each with a state and reason per target."""
        return await all_sessions(self._service, self._lanes, await self._inventory())

    async def session(self, session_id: str) -> dict[str, Any]:
        """One session with its open and dead deliveries. Raises NotFound."""
        return await one_session(self._service, self._lanes, await self._inventory(), session_id)

    # --- looking -------------------------------------------------------------------------------------------------

    async def where(self, reference: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """For each record that `[kind/]name` may mean: `kind`, `namespace`, `name`, `revision`, and per target how far
        it has come (see `arrivals`). Raises NotFound."""
        records = await self._service.find(reference, namespace)
        if not records:
            raise await self._unknown(reference)
        inventory = await self._inventory()
        return [
            {
                "kind": record.kind,
                "namespace": record.namespace,
                "name": record.name,
                "revision": record.revision,
                "targets": await arrivals(self._service, self._lanes, inventory, record),
            }
            for record in records
        ]

    async def _unknown(self, reference: str) -> NotFound:
        routes = (await self._inventory()).table.routes
        guesses = near(reference, tuple(dict.fromkeys(route.source for route in routes if route.source)))
        announced = reference in {route.source for route in routes}
        hint = "a route waits for it" if announced else f"did you mean {guesses[0]!r}?" if guesses else None
        return NotFound(f"there is no record {shown(reference)}", hint=hint, did_you_mean=guesses)

    async def deliveries(
        self,
        *,
        target: str | None = None,
        key: Key | None = None,
        session: str | None = None,
        states: Collection[str] = (),
        limit: int = MOST_DELIVERIES,
    ) -> list[dict[str, Any]]:
        """Deliveries that are open or dead, filtered, at most `limit` of them (delivered ones have no row)."""
        inventory = await self._inventory()
        lane_id = None
        if target is not None:
            lane = inventory.lane(inventory.require(target))
            if lane is None:
                return []
            lane_id = lane.lane_id
        addresses = {lane.lane_id: f"{lane.target_namespace}/{lane.target_name}" for lane in inventory.lanes.values()}
        rows = await self._lanes.deliveries(
            lane_id=lane_id, key=key, session_id=session, states=states, limit=min(max(limit, 1), MOST_DELIVERIES)
        )
        return [delivery_view(row, addresses.get(row.lane_id)) for row in rows]

    async def attempts(self, delivery_id: str) -> list[dict[str, Any]]:
        """The attempts at a delivery that did not succeed, oldest first. Raises NotFound."""
        found = await self._lanes.attempts(delivery_id)
        if not found and delivery_id not in {row.delivery_id for row in await self._lanes.deliveries()}:
            hint = "`ureg delivery ls` lists those that have not arrived"
            raise NotFound(f"there is no delivery {shown(delivery_id)} that waits or failed", hint=hint)
        return [attempt_view(attempt) for attempt in found]

    async def status(self) -> dict[str, Any]:
        """Store, revision, records, targets, queue, counters, warnings."""
        return await status_of(self._service, self._lanes, self._engine, await self._inventory(), self._store_name)
