"""The records behind targets and routes: their documents, their names, and what an address is granted. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from universal_registry.kernel.errors import AddressRefused, Forbidden, Invalid
from universal_registry.kernel.ids import NAME_BYTES, SYSTEM_NAMESPACE
from universal_registry.propagation.routing.modes import MODES, SHAPES
from universal_registry.propagation.routing.route import CLASSIFICATION
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.target import KIND as TARGET_KIND
from universal_registry.registry.record import Record
from universal_registry.registry.selector import exact_name
from universal_registry.registry.words import shown
from universal_registry.security.addresses import Policy, Url, check_address, check_url, is_loopback, transport_for

_URL = re.compile(r"(https?|wss?|nats|tls)://", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a target is given as an address instead of a name."""
    return _URL.match(text) is not None


_CLASSES = {"webhook": "WebhookEndpoint", "websocket": "WebSocketEndpoint", "nats": "NatsEndpoint"}


def has_scheme(text: str) -> bool:
    """Whether it is written as an address, of whatever kind: nobody means a name by `ftp://host`."""
    return _SCHEME.match(text) is not None


def network_for(url: Url, wanted: str | None, *, admin: bool) -> tuple[Policy, str]:
    """The network policy of a target at this address, and a note for people (empty when nothing was decided for them).

    Without a wish, the local administrator's literal loopback or private address is granted, which the note says.
    Raises Forbidden when another caller asks for more than `public`, AddressRefused when the address, as it is written,
    does not fit the policy (what a name resolves to is judged at each attempt).
    """
    literal = _literal(url)
    if wanted is not None:
        policy = _policy(wanted)
        if policy is not Policy.PUBLIC and not admin:
            raise Forbidden(f"network {policy.value} is the local administrator's to grant", hint="run it as the owner")
    else:
        policy = _granted(literal) if admin else Policy.PUBLIC
    if literal is not None:
        check_address(literal, policy)
    note = f"network: {policy.value}, as you are the local administrator"
    return policy, note if wanted is None and policy is not Policy.PUBLIC else ""


def _literal(url: Url) -> str | None:
    """The address that the host is, without asking a resolver."""
    if url.address is not None:
        return str(url.address)
    return "127.0.0.1" if url.host == "localhost" or url.host.endswith(".localhost") else None


def _granted(literal: str | None) -> Policy:
    if literal is None:
        return Policy.PUBLIC
    if is_loopback(literal):
        return Policy.LOOPBACK
    try:
        check_address(literal, Policy.PUBLIC)
    except AddressRefused:
        return Policy.PRIVATE
    return Policy.PUBLIC


def _policy(word: str) -> Policy:
    if word not in list(Policy):
        raise Invalid(f"unknown network {shown(word)}", hint="one of " + ", ".join(Policy))
    return Policy(word)


def name_for_url(url: str) -> str:
    """The name of the target that stands for a URL: `host:port/path`. The same URL always gets the same name.

    A query, which may hold a secret, and a path too long for a name are replaced by a digest.
    """
    parts = check_url(url, insecure_http=True)
    host = f"[{parts.host}]" if ":" in parts.host else parts.host
    path, query, _ = parts.target.partition("?")
    name = f"{host}:{parts.port}{path.rstrip('/')}"
    return fitted_name(name, f"?{sha256(url.encode()).hexdigest()[:8]}" if query else "")


def route_name(mode: str, source: str, targets: Sequence[str]) -> str:
    """The name of the standing route from a source to its targets, as typed: a repeat finds it again.

    A source has one broadcast, whoever it leaves out. The members of a mesh have no order.
    """
    if SHAPES[mode].everyone:
        return fitted_name(f"{mode}:{source}")
    return fitted_name(f"{mode}:{source}:{','.join(sorted(targets) if mode == 'mesh' else targets)}")


def fitted_name(name: str, suffix: str = "") -> str:
    """The name, cut to what a record name may hold, with a digest of all of it, when it is too long."""
    if len((name + suffix).encode()) > NAME_BYTES:
        suffix = f"~{sha256((name + suffix).encode()).hexdigest()[:16]}"
        name = name.encode()[: NAME_BYTES - len(suffix)].decode(errors="ignore").rstrip()
    return name + suffix


def selector_text(name: str, *, kind: str | None = None, namespace: str | None = None) -> str:
    """The selector of the records of exactly this name. The name stands last: it may end with a backslash."""
    terms = [f"kind={kind}"] if kind else []
    terms += [f"namespace={namespace}"] if namespace else []
    return ",".join([*terms, "name=" + exact_name(name).replace(",", "\\,")])


def target_document(name: str, *, url: str | None, delivery: dict[str, Any]) -> dict[str, Any]:
    """The merge that makes an endpoint a target. `delivery`: only what is to be set. Without an address it says nothing
    of what depends on one: classification, protocol and transport stay as they are."""
    document = {"op": "merge", "kind": TARGET_KIND, "namespace": SYSTEM_NAMESPACE, "name": name}
    if url is None:
        return {**document, "spec": {"delivery": delivery}}
    transport = transport_for(url)
    spec = {"protocol": transport, "url": url, "delivery": {"transport": transport, **delivery}}
    return {**document, "classification": _CLASSES[transport], "spec": spec}


def route_document(
    name: str,
    selector: str,
    targets: Sequence[str],
    *,
    mode: str = MODES[0],
    secrets: str = "redact",
    source: str = "",
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The merge that makes a policy a route. `targets`: "namespace/name"; `selector`: in its text form; `options`: of
    the mode, as `exclude`, `follow`, `on_failure`. What a route had before of these is gone."""
    shape = SHAPES[mode]
    propagation: dict[str, Any] = {
        "mode": shape.mode,
        "selector": selector,
        "targets": list(targets),
        "secrets": secrets,
    }
    propagation |= {"pattern": shape.pattern, "exclude": None, "follow": None, "on_failure": None, **(options or {})}
    if source:
        propagation["source"] = source
    return {
        "op": "merge",
        "kind": ROUTE_KIND,
        "namespace": SYSTEM_NAMESPACE,
        "name": name,
        "classification": CLASSIFICATION,
        "spec": {"effect": "route", "enabled": True, "propagation": propagation},
    }


def guarded(operation: dict[str, Any], record: Record | None) -> dict[str, Any]:
    """The operation, refused if its record is no longer as it was read: two callers must not each be shown a secret of
    which only one counts. What a known endpoint is classified as stays."""
    if record is not None:
        operation = {name: value for name, value in operation.items() if name != "classification"}
    return {**operation, "meta": {"revision": record.revision if record else 0}}


def has_secret(record: Record | None) -> bool:
    """Whether the record holds a signing secret already."""
    delivery = record.spec.get("delivery") if record else None
    return isinstance(delivery, dict) and "secret" in delivery
