"""Making targets and changing them, and adding routes."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.kernel.errors import Corrupt, Invalid, Refused
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key, check_name
from universal_registry.propagation.lanes.lane import Hold
from universal_registry.propagation.messages.formats import VERSIONS, Format
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.route import full_address
from universal_registry.propagation.routing.route_filter import parse_filter
from universal_registry.propagation.routing.target import KIND as TARGET_KIND
from universal_registry.propagation.routing.target import Seal, Signing, Target, check_delivery
from universal_registry.propagation.routing.topology import read_target
from universal_registry.propagation.verbs import documents
from universal_registry.propagation.verbs.propagate import check_free
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.propagation.views.plain import moment_text
from universal_registry.registry.once import Once
from universal_registry.registry.operation import Effect
from universal_registry.registry.record import Record
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.registry.words import shell_word, shown
from universal_registry.security.addresses import Policy, check_url, is_clear, take_credential, transport_for
from universal_registry.security.cipher import KEPT
from universal_registry.security.signing import new_secret, parse_secret
from universal_registry.security.wire import new_wire_key

_TRAFFIC = ("order", "delivery", "rejected", "rate", "weight")


class TargetOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller wants of `spec.delivery`; None: as it is, or the default."""

    network: str | None = None
    secret: str | None = None
    insecure_http: bool | None = None
    signing: str | None = None
    seal: str | None = None
    format: str | None = None
    template: str | None = None
    content_type: str | None = None
    in_flight: int | None = None
    timeout: float | None = None
    order: str | None = None
    delivery: str | None = None
    rejected: str | None = None
    rate: float | None = None
    weight: int | None = None


class TargetChange:
    """One `target add` or `target set`. Target and route become one revision; nothing is stored when either is refused.

    `url` None: the address stays as it is, and the target must be known.
    """

    def __init__(
        self,
        service: RegistryService,
        inventory: Inventory,
        name: str,
        url: str | None,
        *,
        actor: Actor,
        once: Once | None = None,
    ) -> None:
        self._service = service
        self._once = once
        self._inventory = inventory
        self._actor = actor
        self._address = inventory.require(name) if url is None else full_address(name)
        self._name = check_name(self._address.removeprefix(f"{SYSTEM_NAMESPACE}/"))
        self._known = inventory.targets.get(self._address)
        self._verb = "set" if url is None else "add"
        self._url: str | None = self._known.url if url is None and self._known else None
        self._credential: str | None = None
        if url is not None:
            self._url, self._credential = take_credential(url)
        self._notes: list[str] = []
        self._warnings: list[str] = []
        self._made: dict[str, str] = {}

    async def run(self, options: TargetOptions, select: str | None = None) -> dict[str, Any]:
        """Decide, store, answer."""
        record = await self._service.records.get(Key(TARGET_KIND, SYSTEM_NAMESPACE, self._name))
        delivery = self._delivery(record, options)
        operations = []
        resumed = self._resumed()
        if self._known is None or self._known.url != self._url or delivery or resumed:
            document = documents.target_document(self._name, url=self._url, delivery=delivery)
            operations.append(documents.guarded(document | resumed, record))
        if select is not None:
            operations.append(await self._route(select))

        def answer(written: Written | None) -> dict[str, Any]:
            return self._answer(delivery, written, select)

        once = self._once and self._once.of(answer)
        if not operations and once is None:
            return answer(None)
        message = f"target {self._verb} {self._name}"
        return answer(await self._service.batch(operations, actor=self._actor, message=message, once=once))

    def _resumed(self) -> dict[str, Any]:
        """What is said of a target that a 410 holds: a new revision of its record, which lets the engine go on."""
        lane = self._inventory.lane(self._address)
        if lane is None or lane.guard.hold is not Hold.GONE or self._verb != "add":
            return {}
        self._notes.append(f"{self._name} was held: {lane.held.partition(';')[0]}; what waits for it is sent now")
        return {"annotations": {"resumed_at": moment_text(self._service.world.now())}}

    def _delivery(self, record: Record | None, options: TargetOptions) -> dict[str, Any]:
        """What is to be set in `spec.delivery`: nothing for what stands there and was not asked to change."""
        before = _in_clear(self._service, record)
        delivery = self._place(options)
        if options.secret is not None:
            parse_secret(options.secret)
            delivery |= {"secret": options.secret, "previous_secret": None, "previous_secret_until": None}
        elif not documents.has_secret(record) and self._verb == "add" and options.signing != Signing.ED25519:
            delivery["secret"] = self._made["secret"] = new_secret(self._service.world)
        delivery |= _chosen(options)
        delivery |= self._seal_key({**before, **delivery}, asked=options.seal is not None)
        delivery = {name: value for name, value in delivery.items() if before.get(name) != value}
        whole = {name: value for name, value in {**before, **delivery}.items() if value is not None}
        check_delivery(self._name, self._url, whole)
        if delivery.get("seal") == Seal.NEVER:
            self._warn_of_secrets()
        return delivery

    def _place(self, options: TargetOptions) -> dict[str, Any]:
        """Where it is, and what its address is granted."""
        known, moved = self._known, self._moved
        if self._url is None:
            if options.network is not None or options.insecure_http is not None:
                hint = f"ureg target add {shell_word(self._name)} URL"
                raise Invalid(f"target {self._name} has no address yet", hint=hint)
            return {}
        insecure = options.insecure_http
        if insecure is None:
            insecure = known is not None and known.insecure_http and not moved
        url = check_url(self._url, insecure_http=insecure)
        place: dict[str, Any] = {"insecure_http": True if insecure else None}
        if self._credential or moved:  # one that is moved never shows the new place the credential of the old one
            place["credential"] = self._credential
        if moved:
            place["transport"] = transport_for(self._url)
        if moved or options.network is not None:
            policy, note = documents.network_for(url, options.network, admin=self._actor.admin)
            place["network"] = policy.value
            self._notes += [note] if note else []
        if known is not None and known.url is not None and moved:
            self._warnings.append(f"{self._name} had another address: what waits for it goes to the new one")
        return place

    @property
    def _moved(self) -> bool:
        return self._known is None or self._known.url != self._url

    def _seal_key(self, whole: dict[str, Any], *, asked: bool) -> dict[str, Any]:
        """A sealing key, where one is needed and there is none."""
        seal = whole.get("seal", Seal.AUTO.value)
        clear = bool(whole.get("insecure_http")) and whole.get("network") != Policy.LOOPBACK.value
        clear = clear and is_clear(self._url)
        needed = seal == Seal.ALWAYS.value or (seal == Seal.AUTO.value and clear)
        if whole.get("seal_key") or not needed or not (asked or self._moved):
            return {}
        key = self._made["seal_key"] = new_wire_key(self._service.world)
        if not asked:
            scheme = (self._url or "").partition(":")[0].lower()
            self._notes.append(
                f"{scheme}:// is read by whoever is on the way: bodies are sealed (--seal never: they are not)"
            )
        return {"seal_key": key}

    def _warn_of_secrets(self) -> None:
        """Says which routes to it include secrets, which it does not get any more."""
        routes = self._inventory.table.by_target.get(self._address, ())
        names = [route.name for route in routes if route.secrets_included]
        if names:
            self._warnings.append(f"secrets leave only sealed: {', '.join(names)} sends none to {self._name} now")

    async def _route(self, select: str) -> dict[str, Any]:
        _check_selector(select, self._service)
        check_free(await self._service.records.get(Key(ROUTE_KIND, SYSTEM_NAMESPACE, self._name)))
        return documents.route_document(self._name, select, [self._address], source=select)

    def _answer(self, delivery: dict[str, Any], written: Written | None, select: str | None) -> dict[str, Any]:
        known = self._known
        network = delivery.get("network", known.network.value if known else Policy.PUBLIC.value)
        return {
            "target": self._address,
            "result": effect_on(written, TARGET_KIND),
            "revision": written.revision if written and written.results else known.revision if known else 0,
            "url": self._url,
            "network": network,
            "route": {"route": self._name, "selector": select, "result": effect_on(written, ROUTE_KIND)}
            if select is not None
            else None,
            "notes": self._notes,
            "warnings": [*self._warnings, *(written.warnings if written else ())],
            **self._made,
        }


def _in_clear(service: RegistryService, record: Record | None) -> dict[str, Any]:
    """`spec.delivery` as it stands, secrets in clear; one whose seal does not open is left out, to be replaced."""
    if record is None:
        return {}
    try:
        spec = service.reveal(record)
    except Corrupt:
        spec = service.shown(record).spec
    delivery = spec.get("delivery")
    if not isinstance(delivery, dict):
        return {}
    return {name: value for name, value in delivery.items() if value != KEPT}


def _chosen(options: TargetOptions) -> dict[str, Any]:
    """The options that are simply set. A format is pinned to its newest version, and takes no other's template."""
    chosen: dict[str, Any] = {
        name: value
        for name in ("signing", "seal", "format", "template", "content_type", "in_flight", "timeout", *_TRAFFIC)
        if (value := getattr(options, name)) is not None
    }
    if options.format in list(Format):
        chosen["format_version"] = VERSIONS[Format(options.format)]
        if options.format != Format.TEMPLATE:
            chosen = {"template": None, "content_type": None} | chosen
    return chosen


def _check_selector(select: str, service: RegistryService) -> None:
    """Raises Invalid for what selects nothing by itself: an empty word is more often a mistake than all there is."""
    if not select.strip():
        hint = "such as kind=alias, or name=* for everything outside of system"
        raise Invalid("the selector is empty", hint=hint, path="select")
    parse_selector(select, service.catalogue)


def effect_on(written: Written | None, kind: str) -> str:
    """What a write did to its record of that kind."""
    results = written.results if written else ()
    return next((each.effect.value for each in results if each.key.kind == kind), Effect.UNCHANGED.value)


async def add_route(
    service: RegistryService,
    inventory: Inventory,
    name: str,
    select: str,
    targets: list[str],
    *,
    secrets: str,
    filter_text: str = "",
    actor: Actor,
    once: Once | None = None,
) -> dict[str, Any]:
    """Make or change a route between known targets.

    Raises NotFound for an unknown one, Conflict for a taken name, Refused for secrets to a target that does not seal.
    """
    if secrets not in ("redact", "include"):
        raise Invalid(f"secrets is {shown(secrets)}", hint="redact or include", path="secrets")
    if not targets:
        raise Invalid("a route needs a target", path="targets")
    name = check_name(name)
    addresses = list(dict.fromkeys(inventory.require(each) for each in targets))
    _check_selector(select, service)
    parse_filter(filter_text)
    if secrets == "include":
        for address in addresses:
            _check_seals(read_target(service, inventory.records[address]))
    check_free(await service.records.get(Key(ROUTE_KIND, SYSTEM_NAMESPACE, name)))
    document = documents.route_document(
        name, select, addresses, secrets=secrets, source=select, options={"filter": filter_text or None}
    )

    def answer(written: Written) -> dict[str, Any]:
        record = written.results[0].record
        assert record is not None
        return {
            "route": name,
            "session": record.uid,
            "result": effect_on(written, ROUTE_KIND),
            "revision": record.revision,
            "selector": select,
            "filter": filter_text,
            "targets": addresses,
            "secrets": secrets,
            "warnings": list(written.warnings),
        }

    message = f"route add {name}"[:200]
    return answer(await service.batch([document], actor=actor, message=message, once=once and once.of(answer)))


def _check_seals(target: Target | None) -> None:
    """Raises Refused for a target to which no secret may go."""
    if target is None or target.seals(with_secrets=True):
        return
    word = shell_word(target.name)
    command = f"target set {word} --seal auto" if target.seal is Seal.NEVER else f"target key rotate {word}"
    raise Refused(f"secrets leave only sealed, and {target.name} does not seal", hint=f"ureg {command}")
