"""Adding targets and routes, and sending a test event to a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from universal_registry.kernel.errors import Invalid, Refused
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key, check_name
from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation import declare
from universal_registry.propagation.deliver import sign_and_address
from universal_registry.propagation.inventory import Inventory
from universal_registry.propagation.outcome import Accepted
from universal_registry.propagation.ports import Envelope, Transport
from universal_registry.propagation.propagate import check_free
from universal_registry.propagation.render import render_test
from universal_registry.propagation.route import KIND as ROUTE_KIND
from universal_registry.propagation.route import full_address
from universal_registry.propagation.target import KIND as TARGET_KIND
from universal_registry.propagation.target import Target, parse_target
from universal_registry.propagation.views import moment_text
from universal_registry.registry.once import Once
from universal_registry.registry.operation import Effect
from universal_registry.registry.record import Record
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.registry.words import shown
from universal_registry.security.addresses import Policy, check_url
from universal_registry.security.signing import new_secret, parse_secret


class TargetAddition:
    """One `target add`. Target and route become one revision, and nothing is stored when either is refused."""

    def __init__(
        self,
        service: RegistryService,
        inventory: Inventory,
        name: str,
        url: str,
        *,
        actor: Actor,
        once: Once | None = None,
    ) -> None:
        self._service = service
        self._once = once
        self._inventory = inventory
        self._actor = actor
        self._address = full_address(name)
        self._name = check_name(self._address.removeprefix(f"{SYSTEM_NAMESPACE}/"))
        self._url = url
        self._notes: list[str] = []
        self._warnings: list[str] = []
        self._made_secret: str | None = None

    async def run(
        self, *, network: str | None, select: str | None, secret: str | None, insecure_http: bool
    ) -> dict[str, Any]:
        """Decide, store, answer."""
        record = await self._service.records.get(Key(TARGET_KIND, SYSTEM_NAMESPACE, self._name))
        known = self._inventory.targets.get(self._address)
        delivery = self._delivery(record, known, network, secret, insecure_http)
        operations = []
        resumed = self._resumed()
        if known is None or known.url != self._url or delivery or resumed:
            document = declare.target_document(self._name, url=self._url, delivery=delivery)
            operations.append(declare.guarded(document | resumed, record))
        if select is not None:
            operations.append(await self._route(select))

        def answer(written: Written | None) -> dict[str, Any]:
            return self._answer(known, delivery, written, select)

        once = self._once and self._once.of(answer)
        if not operations and once is None:
            return answer(None)
        message = f"target add {self._name}"
        return answer(await self._service.batch(operations, actor=self._actor, message=message, once=once))

    def _resumed(self) -> dict[str, Any]:
        """What is said of a target that a 410 holds: a new revision of its record, which lets the engine go on."""
        lane = self._inventory.lane(self._address)
        if lane is None or not lane.held:
            return {}
        self._notes.append(f"{self._name} was held: {lane.held.partition(';')[0]}; what waits for it is sent now")
        return {"annotations": {"resumed_at": moment_text(self._service.world.now())}}

    def _delivery(
        self, record: Record | None, known: Target | None, network: str | None, secret: str | None, insecure_http: bool
    ) -> dict[str, Any]:
        """What is to be set in `spec.delivery`: nothing for what stands there and was not asked to change."""
        moved = known is None or known.url != self._url
        insecure_http = insecure_http or (known is not None and known.insecure_http and not moved)
        url = check_url(self._url, insecure_http=insecure_http)
        delivery: dict[str, Any] = {}
        if moved or network is not None:
            policy, note = declare.network_for(url, network, admin=self._actor.admin)
            delivery["network"] = policy.value
            self._notes += [note] if note else []
        if insecure_http and (known is None or not known.insecure_http):
            delivery["insecure_http"] = True
        elif known is not None and known.insecure_http and not insecure_http:
            delivery["insecure_http"] = None
        if secret is not None:
            parse_secret(secret)
            delivery["secret"] = secret
        elif not declare.has_secret(record):
            delivery["secret"] = self._made_secret = new_secret(self._service.world)
        if known is not None and known.url is not None and moved:
            self._warnings.append(f"{self._name} had another address: what waits for it goes to the new one")
        return delivery

    async def _route(self, select: str) -> dict[str, Any]:
        _check_selector(select, self._service)
        check_free(await self._service.records.get(Key(ROUTE_KIND, SYSTEM_NAMESPACE, self._name)))
        return declare.route_document(self._name, select, [self._address], source=select)

    def _answer(
        self, known: Target | None, delivery: dict[str, Any], written: Written | None, select: str | None
    ) -> dict[str, Any]:
        network = delivery.get("network", known.network.value if known else Policy.PUBLIC.value)
        answer: dict[str, Any] = {
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
        }
        if self._made_secret:
            answer["secret"] = self._made_secret
        return answer


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
    actor: Actor,
    once: Once | None = None,
) -> dict[str, Any]:
    """Make or change a route between known targets. Raises NotFound for an unknown one, Conflict for a taken name."""
    if secrets not in ("redact", "include"):
        raise Invalid(f"secrets is {shown(secrets)}", hint="redact or include", path="secrets")
    if not targets:
        raise Invalid("a route needs a target", path="targets")
    name = check_name(name)
    addresses = list(dict.fromkeys(inventory.require(each) for each in targets))
    _check_selector(select, service)
    check_free(await service.records.get(Key(ROUTE_KIND, SYSTEM_NAMESPACE, name)))
    document = declare.route_document(name, select, addresses, secrets=secrets, source=select)

    def answer(written: Written) -> dict[str, Any]:
        warnings = list(written.warnings)
        if secrets == "include":
            warnings.append("secrets travel readable inside each request: sealing on the wire is not built yet")
        record = written.results[0].record
        assert record is not None
        return {
            "route": name,
            "session": record.uid,
            "result": effect_on(written, ROUTE_KIND),
            "revision": record.revision,
            "selector": select,
            "targets": addresses,
            "secrets": secrets,
            "warnings": warnings,
        }

    message = f"route add {name}"[:200]
    return answer(await service.batch([document], actor=actor, message=message, once=once and once.of(answer)))


async def send_test(
    service: RegistryService,
    transports: Mapping[str, Transport],
    record: Record,
    incarnation: str,
    retry: RetrySettings,
    *,
    show: bool,
) -> dict[str, Any]:
    """One event that stands in no log, sent once. Raises Refused for a target that cannot be sent to as it stands."""
    target = parse_target(record, service.reveal(record))
    if target is None:
        raise Refused(f"{record.name!r:.80} is no target any more")
    transport = transports.get(target.transport)
    if transport is None:
        built = ", ".join(sorted(transports)) or "none"
        raise Refused(f"transport {shown(target.transport)} is not built yet", hint=f"built: {built}")
    now, test_id = service.world.now(), service.world.new_id()
    body = render_test(incarnation, target.address, test_id, moment_text(now) or "")
    envelope = sign_and_address(f"test_{test_id}", body, target, now, retry.timeout_seconds)
    outcome = await transport.send(envelope)
    answer: dict[str, Any] = {
        "target": target.address,
        "delivered": isinstance(outcome, Accepted),
        "outcome": outcome.__struct_config__.tag,
        "status": outcome.status,
        "reason": "" if isinstance(outcome, Accepted) else outcome.reason,
        "milliseconds": outcome.milliseconds,
    }
    if show:
        answer["request"] = _request_view(envelope)
    return answer


def _request_view(envelope: Envelope) -> dict[str, Any]:
    """The exact request: what a receiver sees, and needs to check its own verification against."""
    return {
        "method": "POST",
        "url": envelope.url,
        "headers": [list(header) for header in envelope.headers],
        "body": envelope.body.decode(),
    }
