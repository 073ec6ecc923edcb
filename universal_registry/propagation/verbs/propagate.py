"""The propagation commands: what is stored for "these targets get that source", standing or once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from universal_registry.kernel.errors import Conflict, NotFound, TooLarge, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, SYSTEM_NAMESPACE, Key
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.propagation.routing.modes import SHAPES, STOP, check_targets, mode_named
from universal_registry.propagation.routing.route import CLASSIFICATION, Route
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.verbs import documents
from universal_registry.propagation.verbs.destinations import Destinations, resolve_destinations
from universal_registry.propagation.verbs.sources import PLACEHOLDER_KIND, Source, resolve_source, selected
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.propagation.views.plain import moment_text
from universal_registry.registry.once import Once
from universal_registry.registry.operation import Effect
from universal_registry.registry.record import Record, document
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.registry.words import shown

MOST_ONCE, MOST_ONCE_BYTES = 1000, 1 << 20
"""The most that one `--once` sends, in one request; a standing route has no such limit."""
EVERYTHING = "name=*"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One command as it was given. `data` None: standing, or the state `once`. `deadline`: seconds from now."""

    mode: str
    source: str
    targets: tuple[str, ...]
    data: Any = None
    once: bool = False
    strict: bool = False
    exclude: tuple[str, ...] = ()
    follow: bool = False
    on_failure: str | None = None
    deadline: float | None = None

    @property
    def standing(self) -> bool:
        return self.data is None and not self.once


def read_ask(
    mode: str, source: str | None, targets: Sequence[str], *, on_failure: str | None = None, **more: Any
) -> Ask:
    """The command, with what is wrong with it at first sight said. Raises UsageError."""
    mode = mode_named(mode)
    shape = SHAPES[mode]
    if source is None and mode == "mesh":
        source = EVERYTHING
    if source is None:
        raise UsageError("no source is given", hint="--source NAME")
    ask = Ask(mode=mode, source=source, targets=tuple(targets), on_failure=on_failure, **more)
    check_targets(mode, len(ask.targets))
    if ask.once and ask.data is not None:
        raise UsageError("data and --once exclude each other", hint="with data it is sent once anyway")
    if (ask.exclude or ask.follow) and not shape.everyone:
        raise UsageError(f"{mode} names its targets: nothing is excluded or followed", hint="that is for broadcast")
    if ask.follow and not ask.standing:
        raise UsageError("--follow is for standing sessions", hint="what is sent once goes to the targets of now")
    if on_failure is not None and not shape.after:
        raise UsageError("--on-failure is for chain", hint=f"the targets of {mode} do not wait for each other")
    if ask.deadline is not None and ask.standing:
        raise UsageError("a standing session has no deadline", hint="give data, or --once")
    if shape.two_way and ask.once:
        hint = "unidirectional --once sends the state as it is now"
        raise UsageError(f"{mode} keeps both sides the same: there is no --once", hint=hint)
    if mode == "mesh" and ask.data is not None:
        hint = "bidirectional sends an event to both ends, multicast to several"
        raise UsageError("mesh keeps records the same and takes no data", hint=hint)
    return ask


class Propagation:
    """One propagation command, with its source and targets resolved; `run` stores what it means."""

    def __init__(
        self, service: RegistryService, inventory: Inventory, ask: Ask, *, actor: Actor, once: Once | None = None
    ) -> None:
        self._keyed = once
        self._service = service
        self._inventory = inventory
        self._ask = ask
        self._actor = actor
        self._source = Source(text="", selector="")
        self._to = Destinations()

    async def _resolve(self) -> None:
        """Find both ends. Nothing is stored when either is refused."""
        ask = self._ask
        self._source = await resolve_source(self._service, ask.source)
        if self._source.announced and (ask.strict or ask.once):
            raise NotFound(
                f"there is no record {shown(ask.source)}", hint="leave --strict and --once out to wait for it"
            )
        self._to = await resolve_destinations(
            self._service,
            self._inventory,
            ask.mode,
            ask.targets,
            self._source,
            exclude=ask.exclude,
            follow=ask.follow,
            strict=ask.strict,
            event=ask.data is not None,
            actor=self._actor,
        )

    async def run(self) -> dict[str, Any]:
        """Resolve, then store."""
        await self._resolve()
        if self._ask.standing:
            return await self._standing()
        key, payload = await self._state() if self._ask.once else (self._event_key(), self._ask.data)
        return await self._once(key, payload)

    async def foresee(self) -> dict[str, Any]:
        """What `run` would do, and store nothing: its answer, with `matches` (records that the source is now) and
        `would` (created, updated, unchanged, or emitted)."""
        await self._resolve()
        if self._ask.standing:
            stands, there = self._stands(self._name), self._name in self._inventory.route_records
            would = "unchanged" if stands else "updated" if there else "created"
        else:
            self._event_key() if self._ask.data is not None else await self._state()
            would = "emitted"
        head = await self._service.log.head()
        answer = self._answer(session=None, route=self._name, revision=head.revision, changed=False)
        answer.pop("secret", None)
        answer.pop("secrets", None)
        known = {each: target for each, target in self._inventory.targets.items() if each in self._to.addresses}
        states = [
            {"target": each, "state": self._state_of(each), "url": known[each].url if each in known else None}
            for each in self._to.addresses
        ]
        return {**answer, "would": would, "matches": await self._matches(), "states": states}

    def _state_of(self, address: str) -> str:
        if address not in self._inventory.targets:
            return "new"
        return "held" if self._inventory.held(address) else "ready"

    async def _matches(self) -> int | None:
        """How many records the source is now; None: too many to count at once."""
        if self._source.key is not None:
            return int(self._source.record is not None)
        selector = parse_selector(self._source.selector, self._service.catalogue)
        page = await self._service.list(selector, limit=MOST_ONCE)
        return len(page.records) if page.next is None else None

    # --- standing ----------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return documents.route_name(self._ask.mode, self._source.text, self._to.addresses)

    @property
    def _options(self) -> dict[str, Any]:
        """What the mode adds to the route."""
        shape, ask = SHAPES[self._ask.mode], self._ask
        options: dict[str, Any] = {}
        if ask.exclude:
            options["exclude"] = list(ask.exclude)
        if ask.follow:
            options["follow"] = True
        if shape.after:
            options["on_failure"] = ask.on_failure or STOP
        return options

    async def _standing(self) -> dict[str, Any]:
        name = self._name
        operations = self._to.declarations
        stands = self._stands(name)
        if not stands:
            check_free(await self._service.records.get(Key(ROUTE_KIND, SYSTEM_NAMESPACE, name)))
            operations.append(
                documents.route_document(
                    name,
                    self._source.selector,
                    () if self._ask.follow else self._to.addresses,
                    mode=self._ask.mode,
                    source=self._source.text,
                    options=self._options,
                )
            )
        there = self._inventory.route_records[name] if stands else None

        def answer(written: Written | None) -> dict[str, Any]:
            results = written.results if written else ()
            made = next((each.record for each in results if each.key.kind == ROUTE_KIND), there)
            assert made is not None
            return self._answer(
                session=made.uid,
                route=name,
                revision=written.revision if written and results else made.revision,
                changed=any(each.effect in (Effect.CREATED, Effect.UPDATED) for each in results),
            )

        once = self._keyed and self._keyed.of(answer)
        if not operations and once is None:
            return answer(None)
        message = f"{self._ask.mode} to {', '.join(self._to.addresses)}"[:200]
        return answer(await self._service.batch(operations, actor=self._actor, message=message, once=once))

    def _stands(self, name: str) -> bool:
        """Whether that very route is in force, so that a repeat changes nothing, whatever has appeared since."""
        record = self._inventory.route_records.get(name)
        route = self._inventory.table.by_uid.get(record.uid) if record else None
        return route is not None and self._says_the_same(route)

    def _says_the_same(self, route: Route) -> bool:
        ask = self._ask
        return (
            (route.mode, route.source) == (ask.mode, self._source.text)
            and route.audience.exclude == ask.exclude
            and route.follow == ask.follow
            and (route.follow or (route.targets or route.peers) == self._to.addresses)
            and (not route.after or route.skips == ((ask.on_failure or STOP) != STOP))
        )

    # --- once --------------------------------------------------------------------------------------------------------

    def _event_key(self) -> Key:
        if self._source.key is None:
            raise UsageError("data needs one source, not a selector", hint="give [kind/]name")
        return self._source.key

    async def _state(self) -> tuple[Key, Any]:
        """The present document of the source, without its secrets; of a selector a list of them, under its own text."""
        if self._source.record is not None:
            return self._source.record.key, document(self._service.shown(self._source.record))
        selector = parse_selector(self._source.selector, self._service.catalogue)
        records = await selected(self._service, selector, MOST_ONCE)
        if not records:
            raise NotFound(f"the source {shown(self._source.text)} matches no record", hint="there is no state to send")
        payload = [document(self._service.shown(record)) for record in records]
        if len(canonical(payload)) > MOST_ONCE_BYTES:
            raise TooLarge(f"the {len(records)} records are too much for one request", hint="narrow the selector")
        name = documents.fitted_name(self._source.text.strip())
        return self._service.key(PLACEHOLDER_KIND, DEFAULT_NAMESPACE, name), payload

    async def _once(self, key: Key, payload: Any) -> dict[str, Any]:
        if not self._to.addresses:
            raise NotFound("there is no target to send it to", hint="ureg target add NAME URL")
        if declarations := self._to.declarations:
            await self._service.batch(declarations, actor=self._actor)
        session = self._service.world.new_id()

        def answer(written: Written) -> dict[str, Any]:
            return self._answer(session=session, route=None, revision=written.revision, changed=True)

        # The key goes with the event: a target that was declared before a kill is found there by the repeat.
        once = self._keyed and self._keyed.of(answer)
        written = await self._service.emit(
            key,
            payload,
            audience=self._to.addresses,
            session=session,
            options=self._event_options(),
            actor=self._actor,
            once=once,
        )
        return answer(written)

    def _event_options(self) -> dict[str, str]:
        """What the line says of how it is to be sent (see `plan.Event`)."""
        options = {"mode": self._ask.mode}
        if SHAPES[self._ask.mode].after:
            options["on_failure"] = self._ask.on_failure or STOP
        if (until := deadline_at(self._service.world.now(), self._ask.deadline)) is not None:
            options["deadline"] = moment_text(until) or ""
        return options

    # --- the answer --------------------------------------------------------------------------------------------------

    def _answer(self, *, session: str | None, route: str | None, revision: int, changed: bool) -> dict[str, Any]:
        ask = self._ask
        answer: dict[str, Any] = {
            "session": session,
            "mode": ask.mode,
            "standing": ask.standing,
            "source": self._source.text,
            "targets": list(self._to.addresses),
            "excluded": [{"target": address, "by": word} for address, word in self._to.excluded.items()],
            "route": route if ask.standing else None,
            "revision": revision,
            "changed": changed,
            "notes": [*self._to.notes, *(text for each in self._to.targets for text in each.notes)],
            "warnings": self._warnings(),
        }
        secrets = self._to.secrets
        if len(secrets) == 1:
            answer["secret"] = next(iter(secrets.values()))
        elif secrets:
            answer["secrets"] = secrets
        return answer

    def _warnings(self) -> list[str]:
        warnings = [*self._to.warnings, *(text for each in self._to.targets for text in each.warnings)]
        if self._source.announced and self._ask.standing:
            warnings.insert(0, f"{self._source.text} does not exist yet: it is sent when it appears")
        if not self._to.addresses and self._ask.standing:
            again = "targets that are added later get it" if self._ask.follow else "run it again then, or with --follow"
            warnings.append(f"there is no target to send to yet: {again}")
        return warnings


def deadline_at(now: datetime, seconds: float | None) -> datetime | None:
    """When the time is over that was given; None when none was."""
    return None if seconds is None else now + timedelta(seconds=seconds)


def check_free(record: Record | None) -> None:
    """Raises Conflict when the name of a route is taken by a policy of another class."""
    if record is not None and record.classification != CLASSIFICATION:
        raise Conflict(
            f"the policy {record.name!r:.80} is a {record.classification}, not a route", hint="choose another name"
        )
