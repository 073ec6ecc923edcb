"""The propagation commands: what is stored for "T gets S", standing or once."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.kernel.errors import Conflict, NotFound, Refused, TooLarge, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, SYSTEM_NAMESPACE, Key, check_name
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.propagation import declare
from universal_registry.propagation.inventory import Inventory
from universal_registry.propagation.route import CLASSIFICATION, MODES, full_address
from universal_registry.propagation.route import KIND as ROUTE_KIND
from universal_registry.propagation.sources import PLACEHOLDER_KIND, Source, resolve_source, selected
from universal_registry.propagation.target import KIND as TARGET_KIND
from universal_registry.propagation.target import shell_word
from universal_registry.registry.once import Once
from universal_registry.registry.operation import Effect
from universal_registry.registry.record import Record, document
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.registry.words import near, shown
from universal_registry.security.addresses import check_url
from universal_registry.security.signing import new_secret

NOT_BUILT = ("bidirectional", "multicast", "broadcast", "chain", "chaining", "mesh", "fanout", "enable-stream")
MOST_ONCE, MOST_ONCE_BYTES = 1000, 1 << 20
"""The most that one `--once` sends, in one request; a standing route has no such limit."""


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A target as it was resolved: its address, and the merge that declares it where it is not there yet."""

    address: str
    declaration: dict[str, Any] | None = None
    secret: str | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_mode(mode: str) -> None:
    """Raises Refused for a mode that is not built yet, UsageError for a word that is none."""
    if mode in MODES:
        return
    if mode in NOT_BUILT:
        raise Refused(f"{mode} is not built yet", hint="built: " + ", ".join(MODES))
    guesses = near(mode, (*MODES, *NOT_BUILT))
    raise UsageError(
        f"unknown mode {shown(mode)}", hint=f"did you mean {guesses[0]!r}?" if guesses else "built: " + ", ".join(MODES)
    )


async def resolve_target(
    service: RegistryService, inventory: Inventory, text: str, *, strict: bool, actor: Actor
) -> Destination:
    """`[namespace/]name` or a URL. An unknown name is declared, with a warning; when `strict`, NotFound."""
    if not text.strip():
        raise UsageError("the target is empty", hint="give [namespace/]name or a URL")
    if declare.is_url(text):
        return await _at_url(service, text, actor)
    address = full_address(text)
    target = inventory.targets.get(address)
    name = check_name(address.removeprefix(f"{SYSTEM_NAMESPACE}/"))
    if target is None and strict:
        inventory.require(text)
    if target is not None and target.url is not None:
        return Destination(address=address)
    if strict:
        raise NotFound(f"target {name!r:.80} has no address", hint=f"ureg target add {shell_word(name)} URL")
    declaration = None
    if target is None:
        declaration = declare.target_document(name, url=None, delivery={})
    return Destination(address=address, declaration=declaration, warnings=(_no_address(inventory, address, name),))


def _no_address(inventory: Inventory, address: str, name: str) -> str:
    guesses = [guess for guess in inventory.guesses(address) if guess != name]
    meant = f"; did you mean {guesses[0]!r}?" if guesses else ""
    command = f"ureg target add {shell_word(name)} URL"
    return f"target {name} has no address yet: what is meant for it is held until you run: {command}{meant}"


async def _at_url(service: RegistryService, url: str, actor: Actor) -> Destination:
    name = check_name(declare.name_for_url(url))
    address = full_address(name)
    record = await service.records.get(Key(TARGET_KIND, SYSTEM_NAMESPACE, name))
    made = declare.has_secret(record)
    if record is not None and made and record.spec.get("url") == url:
        return Destination(address=address)
    network, note = declare.network_for(check_url(url), None, admin=actor.admin)
    secret = None if made else new_secret(service.world)
    delivery = {"network": network.value, **({"secret": secret} if secret else {})}
    return Destination(
        address=address,
        declaration=declare.guarded(declare.target_document(name, url=url, delivery=delivery), record),
        secret=secret,
        notes=(note,) if note else (),
    )


class Propagation:
    """One propagation command, with its source and target resolved; `run` stores what it means."""

    def __init__(
        self, service: RegistryService, inventory: Inventory, *, mode: str, actor: Actor, once: Once | None = None
    ) -> None:
        self._keyed = once
        self._service = service
        self._inventory = inventory
        self._mode = mode
        self._actor = actor
        self._source = Source(text="", selector="")
        self._target = Destination(address="")

    async def run(self, source: str, target: str, data: Any, *, once: bool, strict: bool) -> dict[str, Any]:
        """Resolve both ends, then store. Nothing is stored when either is refused."""
        if once and data is not None:
            raise UsageError("data and --once exclude each other", hint="with data it is sent once anyway")
        self._source = await resolve_source(self._service, source)
        if self._source.announced and (strict or once):
            raise NotFound(f"there is no record {shown(source)}", hint="leave --strict and --once out to wait for it")
        self._target = await resolve_target(self._service, self._inventory, target, strict=strict, actor=self._actor)
        if data is None and not once:
            return await self._standing(target)
        key, payload = await self._state() if once else (self._event_key(), data)
        return await self._once(key, payload)

    async def _standing(self, target: str) -> dict[str, Any]:
        name = declare.route_name(self._mode, self._source.text, self._target.address)
        operations = [self._target.declaration] if self._target.declaration else []
        stands = self._stands(name)
        if not stands:
            check_free(await self._service.records.get(Key(ROUTE_KIND, SYSTEM_NAMESPACE, name)))
            operations.append(
                declare.route_document(
                    name, self._source.selector, [self._target.address], mode=self._mode, source=self._source.text
                )
            )
        there = self._inventory.route_records[name] if stands else None

        def answer(written: Written | None) -> dict[str, Any]:
            results = written.results if written else ()
            made = next((each.record for each in results if each.key.kind == ROUTE_KIND), there)
            assert made is not None
            return self._answer(
                session=made.uid,
                standing=True,
                route=name,
                revision=written.revision if written and results else made.revision,
                changed=any(each.effect in (Effect.CREATED, Effect.UPDATED) for each in results),
            )

        once = self._keyed and self._keyed.of(answer)
        if not operations and once is None:
            return answer(None)
        message = f"{self._mode} to {target}"[:200]
        return answer(await self._service.batch(operations, actor=self._actor, message=message, once=once))

    def _stands(self, name: str) -> bool:
        """Whether that very route is in force, so that a repeat changes nothing, whatever has appeared since."""
        record = self._inventory.route_records.get(name)
        route = self._inventory.table.by_uid.get(record.uid) if record else None
        return (
            route is not None
            and route.mode == self._mode
            and route.source == self._source.text
            and route.targets == (self._target.address,)
        )

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
        name = declare.fitted_name(self._source.text.strip())
        return self._service.key(PLACEHOLDER_KIND, DEFAULT_NAMESPACE, name), payload

    async def _once(self, key: Key, payload: Any) -> dict[str, Any]:
        if self._target.declaration:
            await self._service.batch([self._target.declaration], actor=self._actor)
        session = self._service.world.new_id()

        def answer(written: Written) -> dict[str, Any]:
            return self._answer(session=session, standing=False, route=None, revision=written.revision, changed=True)

        # The key goes with the event: a target that was declared before a kill is found there by the repeat.
        once = self._keyed and self._keyed.of(answer)
        audience = [self._target.address]
        return answer(
            await self._service.emit(key, payload, audience=audience, session=session, actor=self._actor, once=once)
        )

    def _answer(
        self, *, session: str, standing: bool, route: str | None, revision: int, changed: bool
    ) -> dict[str, Any]:
        warnings = list(self._target.warnings)
        if self._source.announced and standing:
            warnings.insert(0, f"{self._source.text} does not exist yet: it is sent when it appears")
        answer: dict[str, Any] = {
            "session": session,
            "mode": self._mode,
            "standing": standing,
            "source": self._source.text,
            "targets": [self._target.address],
            "route": route,
            "revision": revision,
            "changed": changed,
            "notes": list(self._target.notes),
            "warnings": warnings,
        }
        if self._target.secret:
            answer["secret"] = self._target.secret
        return answer


def check_free(record: Record | None) -> None:
    """Raises Conflict when the name of a route is taken by a policy of another class."""
    if record is not None and record.classification != CLASSIFICATION:
        raise Conflict(
            f"the policy {record.name!r:.80} is a {record.classification}, not a route", hint="choose another name"
        )
