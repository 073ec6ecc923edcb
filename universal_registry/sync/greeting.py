"""What a link is about, and whether the two that say hello can talk about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from universal_registry.sync.audience import Audiences, Reach, mark_of
from universal_registry.sync.identity import Identity, Live, is_clone
from universal_registry.sync.protocol import PROTOCOL, Hello, Nack


class Link:
    """What a session is about: which peer, and which records (`text`: the scope, the same on both sides; `reach`: what
    of it both may have, by these `audiences`)."""

    __slots__ = ("audiences", "node", "reach", "text")

    def __init__(self, node: str, text: str, reach: Reach, audiences: Audiences | None = None) -> None:
        self.node = node
        self.text = text
        self.reach = reach
        self.audiences = audiences or {}


def is_whole(link: Link, theirs: tuple[str, ...], ours: tuple[str, ...]) -> bool:
    """Whether the link is about all that either side keeps versions of, so that vectors can be taken over."""
    return theirs == ours == (link.text,) and not link.reach.is_narrowed


def refusal(hello: Hello, link: Link, identity: Identity, others: Iterable[Live]) -> Nack | None:
    """Why we do not talk to whoever says this hello. `others`: the sessions that are open beside this one."""
    if hello.proto != PROTOCOL:
        return Nack(code="protocol", message=f"protocol {hello.proto}; this registry speaks {PROTOCOL}")
    if hello.cluster != identity.cluster:
        return Nack(code="cluster", message=f"of another group of registries: {hello.cluster}")
    if is_clone(Live(hello.node, hello.store, hello.boot), others, identity):
        return Nack(code="clone", message=f"node {hello.node} is there twice: its folder was copied while in use")
    if hello.node != link.node:
        return Nack(code="node", message=f"node {hello.node} answers where {link.node} was expected")
    if hello.scope != link.text:
        return Nack(code="scope", message=f"the link is about {link.text!r} here, {hello.scope!r} there")
    if hello.policies != identity.policies:
        return Nack(code="policies", message="other policies for conflicts there: both must show the same")
    if link.audiences != identity.audiences or hello.audiences != mark_of(identity.audiences):
        return Nack(code="audiences", message="other audiences there: the same must be set on all nodes")
    return None
