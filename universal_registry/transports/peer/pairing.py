"""Pairing: one line is made here, and used once there. Then each side has the other's key, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec

from universal_registry.kernel.errors import (
    Conflict,
    Invalid,
    NotFound,
    PreconditionFailed,
    Refused,
    VerifyError,
)
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key, check_name
from universal_registry.kernel.world import utc_text
from universal_registry.registry.service import Actor
from universal_registry.security.pairing import (
    Invitation,
    Sealed,
    fingerprint,
    key_of,
    new_secret,
    open_closed,
    parse_invitation,
    seal_answer,
    secret_hash,
    text_of,
)
from universal_registry.sync.audience import Audiences
from universal_registry.sync.identity import ID_DIGITS, Identity
from universal_registry.sync.pairing import (
    KIND,
    MESH_NAMESPACE,
    Invited,
    invitation_document,
    is_node,
    pause_document,
    peer_document,
    peer_url,
    used_document,
)
from universal_registry.transports.peer.links import Links
from universal_registry.transports.peer.ports import Book, check_scope

LONGEST = timedelta(days=7)
HERE = "here"
"""This registry, among the members of an audience."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a joiner says, sealed. Without `node` he only asks whether the secret is worth anything."""

    secret: str
    node: str = ""
    key: str = ""
    url: str = ""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: what is kept the same, how conflicts are settled, and who may have what."""

    scope: str
    policies: dict[str, str] = {}
    audiences: Audiences = {}


class Joined(NamedTuple):
    """What joining came to."""

    name: str
    node: str
    scope: str
    fingerprint: str


class Pairing:
    """The verbs on peers."""

    def __init__(self, links: Links) -> None:
        self._links = links

    # --- on the side that invites --------------------------------------------------------------------------------

    async def invite(self, *, url: str, scope: str, called: str, lasts: timedelta, actor: Actor) -> dict[str, Any]:
        """Make an invitation: its line is in this answer and in no other. Raises Invalid, Conflict."""
        links, world = self._links, self._links.world
        peer_url(url)
        check_scope(links.replica, scope)
        if lasts > LONGEST:
            raise Invalid("an invitation lasts a week at most")
        if called:
            await self._check_free(check_name(called))
        identity = await links.identity()
        cluster = identity.cluster if identity else world.secret_bytes(ID_DIGITS // 2).hex()
        identity = await links.replica.enable(cluster, (scope,))
        secret, expires = new_secret(world), world.now() + lasts
        name = f"invitation-{world.secret_bytes(4).hex()}"
        document = invitation_document(
            name, secret_hash=secret_hash(secret), expires=expires, scope=scope, called=called
        )
        await links.service.batch([document], actor=actor, message="peer invite")
        key = links.machine.public
        invitation = Invitation(url, identity.node, cluster, key, secret, int(expires.timestamp()))
        return {
            "invitation": name,
            "line": invitation.line,
            "node": identity.node,
            "fingerprint": fingerprint(key),
            "scope": scope,
            "expires_at": utc_text(expires),
        }

    async def joined(self, sealed: Sealed) -> str:
        """Somebody asks to join. Raises VerifyError, Refused (used, over), Invalid, Conflict."""
        links = self._links
        question, answer_key = open_closed(links.machine, sealed)
        try:
            asked = msgspec.json.decode(question, type=Question)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise VerifyError("the question is not that of a registry") from None
        book = await links.book()
        invited = self._invited(book, asked.secret)
        identity = await links.replica.identity()
        terms = Terms(scope=invited.scope, policies=dict(identity.policies), audiences=identity.audiences)
        if asked.node:
            await self._take_in(book, invited, asked, identity)
        return seal_answer(answer_key, msgspec.json.encode(terms))

    def _invited(self, book: Book, secret: str) -> Invited:
        hashed = secret_hash(secret)
        invited = next((each for each in book.invited if each.secret_hash == hashed), None)
        if invited is None or invited.used_by:
            raise Refused("the invitation was used, or taken back", hint="ask for another: ureg peer invite")
        if invited.is_over(self._links.world.now()):
            raise Refused(f"the invitation was worth something until {invited.expires_at}", hint="ask for another")
        return invited

    async def _take_in(self, book: Book, invited: Invited, asked: Question, identity: Identity) -> None:
        if not is_node(asked.node) or asked.node == identity.node:
            raise Invalid(f"{asked.node!r:.40} is no other node", hint="a copy of a registry cannot be its peer")
        key_of(asked.key)
        known = book.of_node(asked.node)
        name = known.name if known is not None else invited.called or f"peer-{asked.node}"
        address = peer_url(asked.url).origin if asked.url else ""
        made = peer_document(name, node=asked.node, key=asked.key, scope=invited.scope, address=address)
        actor = Actor(f"peer:{asked.node}", admin=True)
        try:
            await self._links.service.batch(
                [used_document(invited, asked.node), made], actor=actor, message=f"joined by {invited.name}"
            )
        except PreconditionFailed:
            raise Refused("the invitation was used, or taken back", hint="ask for another: ureg peer invite") from None
        await self._remove(invited.name, actor, "the invitation was used")

    # --- on the side that joins ----------------------------------------------------------------------------------

    async def join(self, line: str, *, name: str, url: str, actor: Actor) -> Joined:
        """Use an invitation. Raises Invalid, Refused, Unreachable, VerifyError, Conflict (of another group)."""
        links = self._links
        invitation = parse_invitation(line)
        parts = peer_url(invitation.url)
        if invitation.expires <= links.world.now().timestamp():
            raise Refused("the invitation's time is over (or the clock here is wrong)", hint="ask for another")
        identity = await links.identity()
        if identity is not None and identity.node == invitation.node:
            raise Invalid("the invitation is this registry's own", hint="use it on the other machine")
        if identity is not None and identity.cluster != invitation.cluster:
            raise Conflict(
                f"this registry belongs to the group {identity.cluster}, not {invitation.cluster}",
                hint="let the other side join here instead",
            )
        known = (await links.book()).of_node(invitation.node)
        name = check_name(name or (known.name if known else f"peer-{invitation.node}"))
        if known is None or known.name != name:
            await self._check_free(name)
        await self._ask(invitation, Question(secret=invitation.secret))
        identity = await links.replica.enable(invitation.cluster, ())
        mine = Question(secret=invitation.secret, node=identity.node, key=text_of(links.machine.public), url=url)
        terms = await self._ask(invitation, mine)
        identity = await links.replica.enable(invitation.cluster, (terms.scope,))
        if terms.policies and not identity.policies:
            await links.reviews.policies(terms.policies)
        if not identity.audiences:
            for scope, members in terms.audiences.items():
                await links.replica.audience(scope, members, actor.name)
        made = peer_document(
            name,
            node=invitation.node,
            key=text_of(invitation.key),
            scope=terms.scope,
            url=parts.origin,
        )
        await links.service.batch([made], actor=actor, message="peer join")
        return Joined(name, invitation.node, terms.scope, fingerprint(invitation.key))

    async def _ask(self, invitation: Invitation, question: Question) -> Terms:
        from universal_registry.transports.peer.dialing import ask_to_join

        data = await ask_to_join(invitation.url, invitation.key, msgspec.json.encode(question), self._links.world)
        terms = msgspec.json.decode(data, type=Terms)
        check_scope(self._links.replica, terms.scope)
        return terms

    # --- on either -----------------------------------------------------------------------------------------------

    async def pause(self, name: str, *, paused: bool, actor: Actor) -> bool:
        """Exchange nothing with a peer for now, or go on; whether that was not so already. Raises NotFound."""
        peer = (await self._links.book()).named(name)
        held = self._links.is_held(peer.node)
        if not paused:
            self._links.released(peer.node)
        if peer.paused == paused:
            return held and not paused
        verb = "pause" if paused else "resume"
        await self._links.service.batch([pause_document(name, paused=paused)], actor=actor, message=f"peer {verb}")
        if paused:
            self._links.drop(peer.node)
        return True

    async def audience(self, scope: str, members: Sequence[str], *, actor: Actor) -> Audiences:
        """Only these may have the records of the scope from now on: names of peers, ids of nodes, or `here`. None: all
        may. What who is left out has already stays there. Raises NotFound, Invalid."""
        links = self._links
        identity = await links.identity()
        if identity is None:
            raise NotFound("this registry has no peers yet", hint="invite one: ureg peer invite")
        chosen = check_scope(links.replica, scope)
        if MESH_NAMESPACE in (chosen.namespaces or (MESH_NAMESPACE,)) and KIND in (chosen.kinds or (KIND,)):
            raise Invalid(
                f"scope {scope!r:.80} takes in the members of meshes, which all must know",
                hint="name namespaces or kinds, such as namespace=payroll",
            )
        nodes = {each.name: each.node for each in (await links.book()).paired} | {HERE: identity.node}
        unknown = [word for word in members if word not in nodes and not is_node(word)]
        if unknown:
            raise NotFound(f"{unknown[0]!r:.80} is no peer, and no id of a node", hint="`ureg peer ls` shows both")
        identity = await links.replica.audience(scope, [nodes.get(word, word) for word in members], actor.name)
        links.drop_all()
        return identity.audiences

    async def remove(self, name: str, *, actor: Actor) -> None:
        """Be paired no more; or take an invitation back. What was exchanged stays. Raises NotFound."""
        book = await self._links.book()
        if name not in {each.name for each in book.invited} and name not in book.faults:
            peer = book.named(name)
            await self._remove(name, actor, "peer rm")
            self._links.drop(peer.node)
            await self._links.replica.forget_peer(peer.node)
            return
        await self._remove(name, actor, "peer rm")

    async def _remove(self, name: str, actor: Actor, message: str) -> None:
        key = Key(KIND, SYSTEM_NAMESPACE, name)
        await self._links.service.delete(key, actor=actor, message=message, missing_ok=True)

    async def _check_free(self, name: str) -> None:
        record = await self._links.service.records.get(Key(KIND, SYSTEM_NAMESPACE, name))
        if record is None or not (record.spec.get("url") or record.spec.get("peer")):
            return  # a name that somebody waits for: this is who was meant
        raise Conflict(f"{name!r:.80} is the name of another endpoint in system", hint="give another name")
