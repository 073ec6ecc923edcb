"""Peers as records: which registries this one is paired with, and what was agreed with each. Pure.

They are endpoints in namespace `system`, which no scope takes along: each side has its own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid, VerifyError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.kernel.world import utc_text
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.security.addresses import Url, check_url
from universal_registry.security.pairing import key_of
from universal_registry.sync.identity import ID_DIGITS

KIND, CLASSIFICATION = "endpoint", "PeerEndpoint"
MESH_NAMESPACE = "mesh"
"""Where the members of meshes are announced."""
ENDPOINTS = Selector(kinds=(KIND,), namespaces=(SYSTEM_NAMESPACE,), classifications=(CLASSIFICATION,))
_DIGITS = frozenset("0123456789abcdef")


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """A registry that this one is paired with. `url`: where this side opens the link; empty: the other does. `address`:
    where third ones may find it."""

    name: str
    node: str
    key: bytes
    scope: str = ""
    url: str = ""
    address: str = ""
    paused: bool = False


class Invited(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation that nobody has used yet, or that is over. `called`: what whoever joins is called here."""

    name: str
    revision: int
    secret_hash: str
    expires_at: str
    scope: str = ""
    called: str = ""
    used_by: str = ""

    def is_over(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at <= utc_text(now)


def is_node(text: object) -> bool:
    """Whether it is the id of a node."""
    return isinstance(text, str) and len(text) == ID_DIGITS and _DIGITS.issuperset(text)


def parse_peer(record: Record) -> Paired | Invited | None:
    """What the record says of a peer; None when it says nothing of one. Raises Invalid for what cannot be followed."""
    body = record.spec.get("peer")
    if record.classification != CLASSIFICATION or record.namespace != SYSTEM_NAMESPACE or not isinstance(body, dict):
        return None
    where = f"peer {record.name!r:.80}"
    scope = body.get("scope", "")
    if not isinstance(scope, str):
        raise Invalid(f"{where}: its scope is no text")
    invitation = body.get("invitation")
    if isinstance(invitation, dict):
        return Invited(
            name=record.name,
            revision=record.revision,
            secret_hash=str(invitation.get("hash", "")),
            expires_at=str(invitation.get("expires_at", "")),
            scope=scope,
            called=str(invitation.get("name", "")),
            used_by=str(invitation.get("used_by", "")),
        )
    node, url = body.get("node"), record.spec.get("url", "")
    if not is_node(node):
        raise Invalid(f"{where}: {node!r:.40} is no id of a node")
    try:
        key = key_of(str(body.get("key", "")))
    except VerifyError as error:
        raise Invalid(f"{where}: {error.message}") from None
    if url:
        peer_url(str(url))
    return Paired(
        name=record.name,
        node=str(node),
        key=key,
        scope=scope,
        url=str(url or ""),
        address=str(body.get("address") or ""),
        paused=body.get("paused") is True,
    )


def peer_url(url: str) -> Url:
    """The address of a registry in its parts. In clear it may be: what is said there is sealed. Raises Invalid."""
    parts = check_url(url, insecure_http=True)
    if parts.scheme not in ("http", "https") or parts.target != "/":
        raise Invalid(f"{parts.origin} is no address of a registry", hint="such as http://host:8080, without a path")
    return parts


def invitation_document(name: str, *, secret_hash: str, expires: datetime, scope: str, called: str) -> dict[str, Any]:
    """The merge that makes an invitation."""
    invitation = {"hash": secret_hash, "expires_at": utc_text(expires), "name": called}
    return _document(name, {"peer": {"scope": scope, "invitation": invitation}})


def used_document(invited: Invited, node: str) -> dict[str, Any]:
    """The merge that uses it up: refused if anybody was first."""
    used = _document(invited.name, {"peer": {"invitation": {"used_by": node}}})
    return {**used, "meta": {"revision": invited.revision}}


def peer_document(name: str, *, node: str, key: str, scope: str, url: str = "", address: str = "") -> dict[str, Any]:
    """The merge that makes a peer. `url`: where this side opens the link; `address`: where others may find it."""
    body = {
        "node": node,
        "key": key,
        "scope": scope,
        "address": address or None,
        "paused": False,
        "invitation": None,
    }
    return _document(name, {"protocol": "peer", "url": url or None, "peer": body})


def pause_document(name: str, *, paused: bool) -> dict[str, Any]:
    """The merge that holds it, or lets it go on."""
    return _document(name, {"peer": {"paused": paused}})


def _document(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "op": "merge",
        "kind": KIND,
        "namespace": SYSTEM_NAMESPACE,
        "name": name,
        "classification": CLASSIFICATION,
        "spec": spec,
    }
