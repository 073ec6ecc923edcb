"""Meshes: whoever is named in one is made known to the others, by records that travel as all others do.

A member is an endpoint in namespace `mesh`. A registry that sees one that it is not paired with pairs with it: its key
came from a peer, who may change every record anyway. Of two, that one connects which can: if both, the smaller id.
"""

from __future__ import annotations

from typing import Any

from universal_registry.kernel.errors import Invalid, RegistryError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.routing.modes import MOST_MEMBERS
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.route import parse_route
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.service import Actor
from universal_registry.security.pairing import key_of, text_of
from universal_registry.sync.identity import Identity
from universal_registry.sync.pairing import (
    CLASSIFICATION,
    KIND,
    MESH_NAMESPACE,
    Paired,
    is_node,
    peer_document,
    peer_url,
)
from universal_registry.transports.peer.links import Links
from universal_registry.transports.peer.ports import Book

_MEMBERS = Selector(kinds=(KIND,), namespaces=(MESH_NAMESPACE,), classifications=(CLASSIFICATION,))
_ROUTES = Selector(kinds=(ROUTE_KIND,), namespaces=(SYSTEM_NAMESPACE,))
_PAGE = 500
_ACTOR = Actor("mesh", admin=True)


class Mesh:
    """Announces and adopts members; to be tended now and then."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._seen = -1

    async def tend(self, book: Book, identity: Identity) -> None:
        """What follows from the records of now. Raises what the store raises."""
        revision = (await self._links.service.log.head()).revision
        if revision == self._seen:
            return
        known = {each.node: each for each in await self._members()}
        documents = await self._announced(book, known)
        documents += self._adopted(book, identity, known)
        if documents:
            await self._links.service.batch(documents, actor=_ACTOR, message="mesh")
        self._seen = revision

    async def _members(self) -> list[Paired]:
        found = []
        for record in await self._all(_MEMBERS):
            try:
                found.append(_member(record))
            except RegistryError:
                continue  # somebody's own record, which means nothing here
        return found

    async def _all(self, selector: Selector) -> list[Record]:
        return [each async for page in self._links.service.pages(selector, size=_PAGE) for each in page.records]

    # --- who is named here is announced --------------------------------------------------------------------------

    async def _announced(self, book: Book, known: dict[str, Paired]) -> list[dict[str, Any]]:
        paired = {f"{SYSTEM_NAMESPACE}/{each.name}": each for each in book.paired}
        named: dict[str, Paired] = {}
        for record in await self._all(_ROUTES):
            try:
                route = parse_route(record, self._links.service.catalogue)
            except Invalid:
                continue  # `status` says what is wrong with it
            if route is not None and route.mode == "mesh":
                named |= {address: paired[address] for address in route.peers if address in paired}
        return [
            _member_document(each)
            for each in named.values()
            if each.node not in known or known[each.node].key != each.key or known[each.node].url != _where(each)
        ]

    # --- who was announced is adopted ----------------------------------------------------------------------------

    def _adopted(self, book: Book, identity: Identity, known: dict[str, Paired]) -> list[dict[str, Any]]:
        mine = known.get(identity.node)
        if mine is None:
            return []
        paired = {each.node for each in book.paired}
        taken = {each.name for each in book.paired}
        room = MOST_MEMBERS - 1 - len(paired)
        documents: list[dict[str, Any]] = []
        for member in sorted(known.values(), key=lambda each: each.node):
            if member.node in (identity.node, *paired) or len(documents) >= room:
                continue
            dials = bool(member.url) and (not mine.url or identity.node < member.node)
            name = member.name if member.name not in taken else f"peer-{member.node}"
            documents.append(
                peer_document(
                    name,
                    node=member.node,
                    key=text_of(member.key),
                    scope=_scope(book),
                    url=member.url if dials else "",
                    address=member.url,
                )
            )
        return documents


def _scope(book: Book) -> str:
    """That of the link by which the member became known: in a mesh all have one."""
    return book.paired[0].scope if book.paired else ""


def _where(peer: Paired) -> str:
    return peer.url or peer.address


def _member(record: Record) -> Paired:
    """The member that a record announces. Raises Invalid, VerifyError."""
    body = record.spec.get("peer")
    if not isinstance(body, dict) or not is_node(body.get("node")):
        raise Invalid(f"{record.name!r:.80} announces no member")
    url = str(record.spec.get("url") or "")
    if url:
        peer_url(url)
    return Paired(name=record.name, node=str(body["node"]), key=key_of(str(body.get("key", ""))), url=url)


def _member_document(peer: Paired) -> dict[str, Any]:
    document = peer_document(peer.name, node=peer.node, key=text_of(peer.key), scope="", url=_where(peer))
    spec = {"protocol": "peer", "url": _where(peer) or None, "peer": {"node": peer.node, "key": text_of(peer.key)}}
    return {**document, "namespace": MESH_NAMESPACE, "spec": spec}
