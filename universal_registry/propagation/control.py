"""Propagation as the fronts see it: targets, routes, sessions, arrival, status. Answers are plain data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from universal_registry.kernel.errors import Invalid, NotFound, PreconditionFailed
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.propagation.lanes.lane import Verb
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.propagation.ports import LaneCommands, LaneQueries, LaneStore, SessionStore, Transport
from universal_registry.propagation.routing.counterparts import Counterparts, nobody
from universal_registry.propagation.verbs.lane_verbs import tell_delivery, tell_target
from universal_registry.propagation.verbs.propagate import Propagation, read_ask
from universal_registry.propagation.verbs.sessions import ReplayAsk, Resending, tell_session
from universal_registry.propagation.verbs.target_keys import KeyField, public_keys, rotate_key, show_key
from universal_registry.propagation.verbs.target_trials import Trial
from universal_registry.propagation.verbs.targets import TargetChange, TargetOptions, add_route
from universal_registry.propagation.views.agents import agent_reports, at_agents
from universal_registry.propagation.views.arrival import arrivals
from universal_registry.propagation.views.deliveries import failed_attempts, one_delivery, why_delivery
from universal_registry.propagation.views.explain import explain_record
from universal_registry.propagation.views.inventory import EngineView, Inventory, take_inventory
from universal_registry.propagation.views.plain import delivery_view, route_view, target_view
from universal_registry.propagation.views.sessions import all_sessions, one_session
from universal_registry.propagation.views.status import status_of
from universal_registry.propagation.views.waterfall import waterfall
from universal_registry.registry.once import Once
from universal_registry.registry.record import Record
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.words import near, shown

MOST_DELIVERIES = 1000
_LOOKS = 3
_AS_IT_IS = TargetOptions()


class Lanes(LaneStore, LaneQueries, LaneCommands, SessionStore, Protocol):
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
        self.counterparts: Counterparts = nobody

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings

    async def _inventory(self) -> Inventory:
        return await take_inventory(self._service, self._lanes, self._engine, self.counterparts, self._settings.retry)

    # --- targets and routes --------------------------------------------------------------------------------------

    async def add_target(
        self,
        name: str,
        url: str,
        *,
        options: TargetOptions = _AS_IT_IS,
        namespace: str = SYSTEM_NAMESPACE,
        select: str | None = None,
        actor: Actor,
        once_key: Once | None = None,
    ) -> dict[str, Any]:
        """Make a target, give a declared one its address, or move one; with `select` also a route of the same name.

        `target`, `result` (created | updated | unchanged), `revision`, `url`, `network`, `route`, `notes`, `warnings`,
        and `secret`, `seal_key` when they were made for it. The same name and URL again change nothing.
        """
        if namespace != SYSTEM_NAMESPACE:
            raise Invalid(f"targets stand in namespace {SYSTEM_NAMESPACE}, not {shown(namespace)}", path="namespace")

        async def add() -> dict[str, Any]:
            change = TargetChange(self._service, await self._inventory(), name, url, actor=actor, once=once_key)
            return await change.run(options, select)

        return await self._repeated(add)

    async def set_target(
        self, namespace: str, name: str, options: TargetOptions, *, actor: Actor, once_key: Once | None = None
    ) -> dict[str, Any]:
        """Change how a known target is delivered to. Answers as `add_target`. Raises NotFound, Invalid."""
        address = f"{namespace}/{name}"

        async def change() -> dict[str, Any]:
            change = TargetChange(self._service, await self._inventory(), address, None, actor=actor, once=once_key)
            return await change.run(options)

        return await self._repeated(change)

    async def targets(self) -> list[dict[str, Any]]:
        """All targets with the state of their lanes, by address."""
        inventory = await self._inventory()
        return [target_view(inventory, address) for address in sorted(inventory.targets)]

    async def target(self, namespace: str, name: str) -> dict[str, Any]:
        """One target. Raises NotFound with "did you mean"."""
        inventory = await self._inventory()
        return target_view(inventory, inventory.require(f"{namespace}/{name}"))

    async def test_target(self, namespace: str, name: str, *, show: bool = False) -> dict[str, Any]:
        """Send one test event now and report: `target`, `delivered`, `outcome`, `status`, `reason`, `milliseconds`.

        With `show` nothing is sent: `target`, and the exact `request`. Nothing is recorded, and neither pause nor
        breaker is asked.
        """
        trial = await self._trial(namespace, name)
        return trial.show() if show else await trial.test()

    async def validate_target(self, namespace: str, name: str, *, actor: Actor) -> dict[str, Any]:
        """Send a signed challenge; who answers with it is marked as validated. As `test_target`, and `validated`."""
        return await (await self._trial(namespace, name)).validate(actor)

    async def _trial(self, namespace: str, name: str) -> Trial:
        record, head = await self._target_record(namespace, name), await self._service.log.head()
        return Trial(self._service, self._transports, record, head.incarnation, self._settings)

    async def _target_record(self, namespace: str, name: str) -> Record:
        inventory = await self._inventory()
        return inventory.records[inventory.require(f"{namespace}/{name}")]

    async def target_key(self, namespace: str, name: str, field: KeyField, *, actor: Actor) -> dict[str, Any]:
        """The signing secret or sealing key of a target in clear, for administrators. Raises Forbidden, NotFound."""
        return show_key(self._service, await self._target_record(namespace, name), field, actor)

    async def rotate_target_key(
        self,
        namespace: str,
        name: str,
        field: KeyField,
        overlap: timedelta,
        *,
        actor: Actor,
        once_key: Once | None = None,
    ) -> dict[str, Any]:
        """Replace it; the old one counts for `overlap` more. `target`, `revision`, the new one, when the overlap ends,
        `warnings`."""

        async def rotate() -> dict[str, Any]:
            record = await self._target_record(namespace, name)
            return await rotate_key(self._service, record, field, overlap, actor=actor, once=once_key)

        return await self._repeated(rotate)

    def public_keys(self) -> dict[str, Any]:
        """The key set (JWKS) with which receivers check v1a signatures of this registry."""
        return public_keys(self._service)

    async def add_route(
        self,
        name: str,
        select: str,
        targets: list[str],
        *,
        secrets: str = "redact",
        filter_text: str = "",
        actor: Actor,
        once_key: Once | None = None,
    ) -> dict[str, Any]:
        """Make or change the route: what the selector matches goes to each target, all of which must be known.

        `filter_text`: only those changes of it (see `filters`).
        """
        return await add_route(
            self._service,
            await self._inventory(),
            name,
            select,
            targets,
            secrets=secrets,
            filter_text=filter_text,
            actor=actor,
            once=once_key,
        )

    async def routes(self) -> list[dict[str, Any]]:
        """All routes in force, by name; one that cannot be followed stands there with its `fault`."""
        inventory = await self._inventory()
        views = [route_view(route) for route in inventory.table.routes]
        views += [{"route": name, "fault": fault} for name, fault in inventory.faults.items()]
        return sorted(views, key=lambda view: str(view["route"]))

    # --- what people tell lanes ----------------------------------------------------------------------------------

    async def tell_target(
        self,
        namespace: str,
        name: str,
        action: Action,
        *,
        actor: Actor,
        duration: timedelta | None = None,
        reason: str = "",
    ) -> dict[str, Any]:
        """Pause, resume, disable or enable a target, reset or open (`duration`) its breaker. Its view, as it then
        stands. The owner of the lane does it, at the latest within a second. Raises NotFound, Invalid."""
        inventory, place = await self._inventory(), f"{namespace}/{name}"
        address = await tell_target(
            inventory, self._lanes, place, action, actor=actor, duration=duration, reason=reason
        )
        self._engine.look()
        return target_view(await self._inventory(), address)

    async def tell_delivery(
        self, delivery_id: str, action: Action, *, actor: Actor, reason: str = ""
    ) -> dict[str, Any]:
        """Redrive or skip a dead delivery: `delivery`, `target`, `action`. Raises NotFound, Conflict, Invalid."""
        told = await tell_delivery(
            await self._inventory(), self._lanes, delivery_id, action, actor=actor, reason=reason
        )
        self._engine.look()
        return told

    # --- propagating ---------------------------------------------------------------------------------------------

    async def propagate(
        self,
        mode: str,
        source: str | None,
        targets: str | Sequence[str],
        data: Any = None,
        *,
        actor: Actor,
        once_key: Once | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """The command "these targets get S". Without data: the standing session (the state now, each later change),
        found again on a repeat. With data (any JSON value but null): that as a one-shot event.

        `options`: `once` (the state now, once), `strict` (NotFound, before anything is stored, for an unknown source or
        a target without an address), `exclude`, `follow`, `on_failure`, `deadline` (see `propagate.Ask`).
        `session`, `mode`, `standing`, `source`, `targets`, `excluded`, `route`, `revision`, `changed`, `notes`,
        `warnings`, and `secret` (`secrets`, by address, of several) when targets at URLs were made.
        """
        ask = read_ask(mode, source, [targets] if isinstance(targets, str) else targets, data=data, **options)

        async def propagate() -> dict[str, Any]:
            return await Propagation(self._service, await self._inventory(), ask, actor=actor, once=once_key).run()

        return await self._repeated(propagate)

    async def foresee(
        self, mode: str, source: str | None, targets: Sequence[str], data: Any = None, *, actor: Actor, **options: Any
    ) -> dict[str, Any]:
        """What `propagate` would do, with nothing stored: its answer, and `would`, `matches`, `states`."""
        ask = read_ask(mode, source, targets, data=data, **options)
        return await Propagation(self._service, await self._inventory(), ask, actor=actor).foresee()

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

    async def waterfall(self, session_id: str) -> dict[str, Any]:
        """A session on one axis of time (see `waterfall`). Raises NotFound."""
        return await waterfall(self._lanes, await self.session(session_id), self._world.now())

    async def tell_session(
        self, session_id: str, verb: Verb, *, actor: Actor, once_key: Once | None = None
    ) -> dict[str, Any]:
        """Pause, resume or cancel a session (see `session_verbs.tell_session`)."""
        inventory = await self._inventory()
        return await tell_session(self._service, self._lanes, inventory, session_id, verb, actor=actor, once=once_key)

    async def replay(self, ask: ReplayAsk, *, actor: Actor, once_key: Once | None = None) -> dict[str, Any]:
        """Send again what a session sent (see `session_verbs.Resending`)."""
        inventory = await self._inventory()
        return await Resending(self._service, self._lanes, inventory, ask).run(actor=actor, once=once_key)

    async def foresee_replay(self, ask: ReplayAsk) -> dict[str, Any]:
        """How many deliveries that would make."""
        return await Resending(self._service, self._lanes, await self._inventory(), ask).foresee()

    # --- looking -------------------------------------------------------------------------------------------------

    async def where(self, reference: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """For each record that `[kind/]name` may mean: `kind`, `namespace`, `name`, `revision`, and per target how far
        it has come (see `arrivals`). Raises NotFound."""
        records = await self._service.find(reference, namespace)
        if not records:
            raise await self._unknown(reference)
        inventory, reports = await self._inventory(), await agent_reports(self._service)
        return [
            {
                "kind": record.kind,
                "namespace": record.namespace,
                "name": record.name,
                "revision": record.revision,
                "targets": [
                    *await arrivals(self._service, self._lanes, inventory, record),
                    *await at_agents(self._service, reports, record),
                ],
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
        since: datetime | None = None,
        limit: int = MOST_DELIVERIES,
    ) -> list[dict[str, Any]]:
        """Deliveries that are open or dead, filtered, at most `limit` of them (delivered ones have no row). Raises
        NotFound for a target or a session that there is not."""
        inventory = await self._inventory()
        lane_id = None
        if target is not None:
            lane = inventory.lane(inventory.require(target))
            if lane is None:
                return []
            lane_id = lane.lane_id
        rows = await self._lanes.deliveries(
            lane_id=lane_id,
            key=key,
            session_id=session,
            states=states,
            since=since,
            limit=min(max(limit, 1), MOST_DELIVERIES),
        )
        if session is not None and not rows:
            await self.session(session)
        return [delivery_view(inventory, row) for row in rows]

    async def attempts(self, delivery_id: str) -> list[dict[str, Any]]:
        """The attempts at a delivery that did not succeed, oldest first. Raises NotFound."""
        return await failed_attempts(self._lanes, delivery_id)

    async def delivery(self, delivery_id: str) -> dict[str, Any]:
        """One delivery that has not arrived, and its `failed_attempts`. Raises NotFound for one that has no row."""
        return await one_delivery(self._lanes, await self._inventory(), delivery_id)

    async def why(self, delivery_id: str) -> dict[str, Any]:
        """Why a delivery is where it is (see `explain_delivery`). Raises NotFound for one that has no row."""
        return await why_delivery(self._lanes, await self._inventory(), delivery_id)

    async def explain(self, reference: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """Of each record that `[kind/]name` may mean, who gets it and why (see `explain_record`). Raises NotFound."""
        records = await self._service.find(reference, namespace)
        if not records:
            raise await self._unknown(reference)
        inventory = await self._inventory()
        return [explain_record(inventory, record) for record in records]

    async def status(self) -> dict[str, Any]:
        """Store, revision, records, targets, queue, counters, warnings."""
        return await status_of(self._service, self._lanes, self._engine, await self._inventory(), self._store_name)
