"""All links of this process: who is paired, who is connected, and what each link has come to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from universal_registry.kernel.errors import Conflict as StateConflict
from universal_registry.kernel.errors import Forbidden, NotFound, RegistryError, ShuttingDown
from universal_registry.kernel.world import World, utc_text
from universal_registry.registry.service import RegistryService
from universal_registry.security.pairing import Answered, Asked, MachineKey, answer_opening
from universal_registry.sync.audience import Reach, barred
from universal_registry.sync.greeting import Link as About
from universal_registry.sync.identity import Identity, Live, Renewal
from universal_registry.sync.pairing import ENDPOINTS, Invited, Paired, parse_peer
from universal_registry.sync.session import Session
from universal_registry.sync.version import Vector, joined
from universal_registry.transports.peer.accepting import Accepting
from universal_registry.transports.peer.link import Link
from universal_registry.transports.peer.paths import SILENT_SECONDS
from universal_registry.transports.peer.ports import Book, Replica, Reviews, Tended, Trouble

if TYPE_CHECKING:
    from universal_registry.transports.peer.dialing import Dialed

_PAGE = 500
_MOST_ACCEPTED = 256
_PROOF_SECONDS = 2.0
"""How long a link that is already there may take to show that it is alive, when its node connects once more."""
CLONE, TO_AND_FRO = "clone", "to and fro"
_BY_TURNS = "changed here and there by turns, more than ten times within a minute: two programs set it, each its way"


class Links:
    """`news`: called with an event's name and fields, when something happened that somebody may have to look at."""

    def __init__(
        self,
        service: RegistryService,
        replica: Replica,
        reviews: Reviews,
        machine: Callable[[], MachineKey],
        world: World,
    ) -> None:
        self.service = service
        self.replica = replica
        self.reviews = reviews
        self.world = world
        self.news: Callable[..., None] = lambda *_, **__: None
        self.holds: Callable[[], Awaitable[bool]] | None = None
        """Whether it is this process that connects; None: nobody else could."""
        self.mesh: Tended | None = None
        self.renewal: Renewal | None = None
        """Why this registry took a new name when it was opened."""
        self.closing = False
        self._machine = machine
        self._accepted: dict[str, Accepting] = {}
        self._dialed: dict[str, Dialed] = {}
        self._linked_nodes: set[str] = set()
        self.troubles: dict[str, Trouble] = {}
        self._heard_of: Vector = {}

    @property
    def why_renewed(self) -> str:
        """The same in words; empty: it did not."""
        return str(self.renewal or "")

    @property
    def machine(self) -> MachineKey:
        """The key pair of this registry."""
        return self._machine()

    # --- who is who -------------------------------------------------------------------------------------------

    async def identity(self) -> Identity | None:
        """Who this registry is to its peers; None while it is no node."""
        try:
            return await self.replica.identity()
        except NotFound:
            return None

    async def book(self) -> Book:
        """What the records say now."""
        paired: list[Paired] = []
        invited: list[Invited] = []
        faults: dict[str, str] = {}
        async for page in self.service.pages(ENDPOINTS, size=_PAGE):
            for record in page.records:
                try:
                    found = parse_peer(record)
                except RegistryError as error:
                    faults[record.name] = str(error)
                    continue
                if isinstance(found, Paired):
                    paired.append(found)
                elif found is not None:
                    invited.append(found)
        return Book(paired=tuple(paired), invited=tuple(invited), faults=faults)

    def all(self) -> list[Link]:
        """The links that are there, proven or not."""
        return [each.link for each in self._accepted.values()] + [each.link for each in self._dialed.values()]

    def link_of(self, node: str) -> Link | None:
        """The link with a peer, if there is one on which something has been said."""
        found = [each for each in self.all() if each.peer.node == node and not each.is_over]
        return max(found, key=lambda each: (each.live is not None, each.heard_at), default=None)

    def reach(self, peer: Paired, identity: Identity) -> Reach:
        """What a link with the peer carries: of its scope, what both may have. Raises Invalid."""
        without = barred(identity.audiences, identity.node, peer.node)
        return Reach(self.replica.selector(peer.scope), tuple(map(self.replica.selector, without)))

    def _new(self, peer: Paired, identity: Identity) -> Link:
        about = About(peer.node, peer.scope, self.reach(peer, identity), identity.audiences)
        session = Session(self.replica, about, self.world)
        link = Link(peer, session, self.world, lambda: self._others(link))
        return link

    def heard_of(self) -> Vector:
        """What there is, as far as peers have said since the start: for each origin its newest number."""
        for link in self.all():
            self._heard_of = joined(self._heard_of, link.session.seen_there)
        return self._heard_of

    def _others(self, link: Link) -> list[Live]:
        return [each.live for each in self.all() if each is not link and each.live is not None]

    # --- links that are opened from here -------------------------------------------------------------------------

    async def dial(self, peer: Paired) -> Dialed:
        """Connect. Raises Unreachable, VerifyError, AddressRefused, Invalid, NotFound, and what the store raises."""
        from universal_registry.transports.peer.dialing import Dialed

        identity = await self.replica.identity()
        dialed = await Dialed.open(self._new(peer, identity), self.machine, identity.node, self.world)
        await dialed.link.open()
        self._dialed[peer.node] = dialed
        return dialed

    def hung_up(self, dialed: Dialed, reason: str) -> bool:
        """A link that was dialed is over, and why. Whether it was refused for a reason that does not pass by itself."""
        dialed.close()
        node = dialed.link.peer.node
        if self._dialed.get(node) is dialed:
            del self._dialed[node]
        return bool(self._ended(dialed.link, reason).code)

    def _ended(self, link: Link, reason: str) -> Trouble:
        link.is_told = True
        refused = link.session.refused
        if refused is not None:
            if refused[0] == CLONE:
                self._alarm(link, refused[1])
            return self.failed(link.peer.node, refused[1], code=refused[0])
        return self.failed(link.peer.node, reason)

    def failed(self, node: str, reason: str, code: str = "") -> Trouble:
        """There is no link with a peer, and this is why. What is told once is not told again."""
        before = self.troubles.get(node)
        if before is not None and (before.reason, before.code) == (reason, code):
            return before
        self._linked_nodes.discard(node)
        since = before.since if before is not None else utc_text(self.world.now())
        trouble = self.troubles[node] = Trouble(reason=reason, code=code, since=since)
        self.news("link lost" if not code else "link refused", peer=node, reason=reason, code=code)
        return trouble

    def is_held(self, node: str) -> bool:
        """Whether it was there twice, and nobody has said since that it is not any more."""
        trouble = self.troubles.get(node)
        return trouble is not None and trouble.code == CLONE

    def released(self, node: str) -> None:
        """Somebody has looked after it."""
        self.troubles.pop(node, None)

    def _alarm(self, link: Link, message: str) -> None:
        """A node that is there twice: neither is talked to, for nobody can say which is the real one."""
        self.news("clone", peer=link.peer.name, reason=message)
        theirs = link.session.theirs
        for each in self.all():
            if each is not link and theirs is not None and each.peer.node == link.peer.node:
                each.session.refused = (CLONE, message)
                each.is_told = True
                each.close()

    # --- links that are opened from there ------------------------------------------------------------------------

    async def accept(self, asked: Asked) -> Answered:
        """A peer opens a link. Raises Forbidden for one that is not paired, VerifyError for one that is another."""
        if self.closing:
            raise ShuttingDown("the registry is stopping")
        identity = await self.replica.identity()
        peer = (await self.book()).of_node(asked.node)
        if peer is None or asked.to != identity.node:
            raise Forbidden("this registry is not paired with whoever asks", hint="ureg peer invite")
        link_id = self.world.secret_bytes(16).hex()
        answered, keys = answer_opening(self.machine, asked, peer.key, link_id, self.world)
        if peer.paused:
            raise StateConflict(f"the link is paused: ureg peer resume {peer.name}")
        if self.is_held(peer.node):
            raise StateConflict(self.troubles[peer.node].reason, hint=f"ureg peer resume {peer.name}")
        if len(self._accepted) >= _MOST_ACCEPTED:
            raise StateConflict("too many links are open")
        link = self._new(peer, identity)
        for known, each in tuple(self._accepted.items()):
            if each.link.peer.node == peer.node and not each.is_proven:
                each.link.close()
                del self._accepted[known]
        self._accepted[link_id] = Accepting(link, keys)
        return answered

    async def sent(self, link_id: str, message: bytes) -> bytes:
        """A message of a peer, on a link that it has opened. Raises NotFound, VerifyError, Conflict."""
        accepted = self._known(link_id)
        answer = await accepted.sent(message, lambda: self._proven(accepted.link))
        if accepted.link.session.refused is not None and not accepted.link.is_told:
            self._ended(accepted.link, "")
        elif accepted.link.live is not None:
            self._linked(accepted.link.peer.node)
        return answer

    async def polled(self, link_id: str, message: bytes) -> bytes:
        """A peer waits for what we have to say. Raises as `sent`."""
        return await self._known(link_id).polled(message)

    def _known(self, link_id: str) -> Accepting:
        found = self._accepted.get(link_id)
        if found is None or found.link.is_over:
            raise NotFound("there is no such link any more", hint="open it anew")
        return found

    async def _proven(self, link: Link) -> None:
        """It is the peer that has opened the link. Before that nothing is done for whoever did."""
        await self._make_room(link)
        await link.open()

    async def _make_room(self, link: Link) -> None:
        """A node connects while a link with it is there: that one is dead, unless it shows that it is not. Then the
        node is there twice, which the session will find."""
        for key, each in tuple(self._accepted.items()):
            old = each.link
            if old is link or old.peer.node != link.peer.node:
                continue
            asked_at = old.heard_at
            old.nudge()
            await old.heard_again(_PROOF_SECONDS)
            if old.heard_at == asked_at or old.is_over:
                old.close()
                self._accepted.pop(key, None)

    def _linked(self, node: str) -> None:
        self.troubles.pop(node, None)
        if node not in self._linked_nodes:
            self._linked_nodes.add(node)
            self.news("linked", peer=node)

    async def to_dial(self) -> dict[str, Paired]:
        """By node, the peers that this process is to connect to; all links are tended. Raises what the store raises."""
        identity = await self.identity()
        if identity is None:
            return {}
        book = await self.book()
        await self.tend(book, identity)
        if self.mesh is not None:
            await self.mesh.tend(book, identity)
        if self.holds is not None and not await self.holds():
            return {}
        return {each.node: each for each in book.paired if each.url and not each.paused and not self.is_held(each.node)}

    async def purge(self) -> int:
        """Drop tombstones that nobody needs any more. Raises what the store raises."""
        return await self.reviews.purge() if await self.identity() is not None else 0

    # --- all of them ---------------------------------------------------------------------------------------------

    async def woken(self) -> None:
        """Something was committed: tell whoever waits. Raises what the store raises."""
        for link in self.all():
            await link.woken()

    async def tend(self, book: Book, identity: Identity) -> None:
        """Now and then: let sessions compare, and end the links that are dead, or not wanted any more."""
        self.heard_of()
        for record, node in self.replica.to_and_fro().items():
            self.news(TO_AND_FRO, record=str(record), peer=node, reason=_BY_TURNS)
        wanted = {each.node: each for each in book.paired if not each.paused}
        for link in self.all():
            is_wanted = wanted.get(link.peer.node) == link.peer and link.session.audiences == identity.audiences
            silent = self.world.monotonic() - link.heard_at
            if not is_wanted:
                link.part()
                link.close()
            elif silent > SILENT_SECONDS:
                link.close()
                link.is_told = True
                self.failed(link.peer.node, f"nothing was heard of it for {silent:.0f} s")
            else:
                await link.tick()
                if link.live is not None:
                    self._linked(link.peer.node)
        for key, each in tuple(self._accepted.items()):
            if each.link.is_over:
                self._ended_accepted(key, each)

    def _ended_accepted(self, key: str, accepted: Accepting) -> None:
        self._accepted.pop(key, None)
        node = accepted.link.peer.node
        if self.link_of(node) is None and not accepted.link.is_told:
            self._ended(accepted.link, "the connection ended")

    def drop(self, node: str) -> None:
        """End the links with a peer here and now."""
        for link in self.all():
            if link.peer.node == node:
                link.part()
                link.close()

    def drop_all(self) -> None:
        """End all links here and now; they are opened anew."""
        for link in self.all():
            link.part()
            link.close()

    def part(self) -> None:
        """Say goodbye everywhere, and open no link any more: whoever waits for us is answered at once."""
        self.closing = True
        for link in self.all():
            link.part()
