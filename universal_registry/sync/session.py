"""One link's session: frames in, frames out. It does no I/O of its own but that of the store's port.

Both sides do the same: say hello, ask for the other's feed, and answer with batches, a few at once (`outgoing.py`).
A vector is said whole in the hello; after it only what has been seen since (`_sent`, `_heard`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec.structs import replace

from universal_registry.kernel.errors import Malformed, RegistryError
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import World, utc_text
from universal_registry.sync import mending
from universal_registry.sync.audience import Audiences, mark_of
from universal_registry.sync.digest import Tree
from universal_registry.sync.greeting import Link, is_whole, refusal
from universal_registry.sync.identity import Identity, Live, renewal_for
from universal_registry.sync.outgoing import Outgoing
from universal_registry.sync.ports import Peer, SyncStore
from universal_registry.sync.protocol import (
    BATCH_BYTES,
    PROTOCOL,
    Ack,
    Batch,
    Bye,
    Digest,
    Frame,
    Hello,
    Items,
    Nack,
    Since,
    StateOf,
    decode,
    encode,
)
from universal_registry.sync.version import Vector, beyond, joined

AGAIN_SECONDS = 1.0
"""Between two comparisons that nobody has waited a tick for."""
COMPARE_SECONDS = 24 * 3600.0
"""After so long all digests are read again and compared, though nothing has changed since they were equal."""


class Phase(StrEnum):
    """Where a session is. OPENING: no hello yet. SYNCING: something is on its way, or was not compared yet. IN_SYNC:
    both roots were equal, and nothing has moved since. ENDED: open another, unless `Session.refused` says why not."""

    OPENING = "opening"
    SYNCING = "syncing"
    IN_SYNC = "in_sync"
    ENDED = "ended"


class Session:
    """One connection with a peer. Calls must not overlap: whoever carries the frames awaits each before the next.

    `live`: the other sessions that are open now, of all links. After each call `phase` is up to date; when it is ENDED,
    what was returned is still to be sent. `refused`: (code, message) when opening it again will not help by itself;
    the code `clone` is an alarm.
    """

    def __init__(self, store: SyncStore, link: Link, world: World, *, batch_bytes: int = BATCH_BYTES) -> None:
        self._store = store
        self._batch_bytes = batch_bytes
        self._link = link
        self._world = world
        self._tree = Tree()
        self._tree_at = 0
        self._whole = False
        self._outgoing = Outgoing(store, link.reach)
        self._said: Vector = {}
        """The vector of our hello."""
        self._as = ""
        """The id of our store in it; empty before."""
        self._asked_at = -1
        """Where a batch of the peer's feed was missing, and asked for again."""
        self._equal_at = -1
        self._compared_at = world.monotonic()
        self._rested_at = self._compared_at
        self._is_hearing = True
        """Whether more of the peer's feed is to come, as far as it has said."""
        self._quiet = 0
        """Ticks in a row with nothing under way, and not known to be equal."""
        self.peer = Peer(node=link.node, scope=link.text)
        self.theirs: Hello | None = None
        self.phase = Phase.OPENING
        self.refused: tuple[str, str] | None = None

    @property
    def root(self) -> str:
        """Of the records in the link's scope, as of the last comparison."""
        return self._tree.root

    @property
    def audiences(self) -> Audiences:
        """Those by which it was opened: others need another session."""
        return self._link.audiences

    @property
    def seen_there(self) -> Vector:
        """What the peer has seen, as it last said; nothing of a link on which vectors are not shared."""
        return self._outgoing.seen if self._whole else {}

    @property
    def live(self) -> Live | None:
        """Who is at the other end, once that is known."""
        return Live(self.theirs.node, self.theirs.store, self.theirs.boot) if self.theirs else None

    # --- what the carrier calls ----------------------------------------------------------------------------------

    async def open(self) -> list[bytes]:
        """The first frame. To be called once, on both sides."""
        identity = await self._store.identity()
        mark = mark_of(self._link.audiences)
        self.peer = replace(await self._store.peer(self._link.node), scope=self._link.text)
        if self.peer.audiences != mark:
            self.peer = replace(self.peer, audiences=mark, store="", cursor=0)
        await self._look()
        self._said, self._as = identity.vector, identity.store
        hello = Hello(
            proto=PROTOCOL,
            cluster=identity.cluster,
            node=identity.node,
            store=identity.store,
            epoch=identity.epoch,
            boot=identity.boot,
            vv=identity.vector,
            root=self._tree.root,
            feed=identity.feed,
            floor=identity.floor,
            scope=self._link.text,
            tracked=identity.tracked,
            policies=identity.policies,
            audiences=mark,
            clock_ms=self._clock_ms(),
        )
        return [encode(hello)]

    async def receive(self, data: bytes, others: Iterable[Live] = ()) -> list[bytes]:
        """What to answer to a frame. `others`: the sessions that are open beside this one. A frame that is none ends
        the session; an error of the store is raised, and ends it too."""
        if self.phase is Phase.ENDED:
            return []
        try:
            return self._sent(await self._answer(decode(data), others))
        except Malformed as error:
            return self._end(Nack(code="malformed", message=error.message))
        except RegistryError:
            self.phase = Phase.ENDED
            raise

    async def woken(self) -> list[bytes]:
        """Something was committed here: what to send, if the peer waits for it."""
        return self._sent(await self._next())

    async def tick(self) -> list[bytes]:
        """To be called now and then: stores what was acknowledged, and compares roots when all is quiet and something
        has changed since they were equal, or a day has passed. The lower node asks; the other only if nobody has by its
        next tick."""
        if self.phase is Phase.ENDED or self.theirs is None:
            return []
        frames = await self._next()
        if not frames and self._outgoing.is_quiet:
            identity = await self._store.identity()
            if (ending := await self._renewed(identity, {})) is not None:
                return self._sent(ending)
            if self.peer.acked:
                await self._store.save_peer(self.peer)
            is_due = self._world.monotonic() - self._compared_at >= COMPARE_SECONDS
            if is_due:
                self._tree, self._tree_at = Tree(), 0
            await self._look()
            is_equal = not is_due and self.phase is Phase.IN_SYNC and self._equal_at == self._tree_at
            self._quiet = 0 if is_equal else self._quiet + 1
            if self._quiet > (0 if self._asks_first(identity) else 1):
                frames = [Digest(root=self._tree.root, ask=True)]
        return self._sent(frames)

    def close(self) -> list[bytes]:
        """Say goodbye."""
        return self._end(Bye(reason="closed")) if self.phase is not Phase.ENDED else []

    async def _rested(self) -> list[Frame]:
        """All of ours has arrived: whether both hold the same is asked at once, but not more often than ticks do."""
        now = self._world.monotonic()
        if self._is_hearing or not self._outgoing.is_quiet or now - self._rested_at < AGAIN_SECONDS:
            return []
        self._rested_at = now
        return [Digest(root=(await self._look()).root, ask=True)]

    # --- frames --------------------------------------------------------------------------------------------------

    def _sent(self, frames: Sequence[Frame]) -> list[bytes]:
        """Frames as they leave: the peer knows the vector of our hello."""
        made = []
        for frame in frames:
            if isinstance(frame, Since | Batch | Ack | StateOf):
                if frame.vv and beyond(self._said, frame.vv):  # a standby that lagged has taken over, say
                    return self._end(Bye(reason="this store has gone back: its vector is to be said anew"))
                frame = replace(frame, vv=beyond(frame.vv, self._said))
            made.append(encode(frame))
        return made

    async def _answer(self, frame: Frame, others: Iterable[Live]) -> Sequence[Frame]:
        match frame:
            case Hello():
                return await self._greeted(frame, others)
            case Nack() | Bye():
                return self._parted(frame)
        if self.theirs is None:
            raise Malformed("a frame before the hello")
        match frame:
            case Digest():
                return await self._compared(frame)
            case Items():
                self._check_scope([key for key, _ in frame.digests])
                return await mending.states_for(self._store, await self._look(), frame)
            case Since() | Batch() | Ack() | StateOf():
                return await self._heard(replace(frame, vv=joined(self.theirs.vv, frame.vv)))

    async def _heard(self, frame: Since | Batch | Ack | StateOf) -> Sequence[Frame]:
        match frame:
            case Since():
                return await self._since(frame)
            case Batch():
                return await self._batch(frame)
            case Ack():
                if not self._outgoing.acknowledged(frame):
                    return []
                return await self._next() or await self._rested()
            case StateOf():
                return await self._mended(frame)

    async def _greeted(self, hello: Hello, others: Iterable[Live]) -> list[Frame]:
        if self.theirs is not None:
            if hello == self.theirs:
                return []  # repeated on its way
            raise Malformed("another hello")
        identity = await self._store.identity()
        self.theirs = hello
        if (refused := refusal(hello, self._link, identity, others)) is not None:
            self.refused = (refused.code, refused.message)
            self.phase = Phase.ENDED
            return [refused]
        if (ending := await self._renewed(identity, hello.vv)) is not None:
            return ending
        self._whole = is_whole(self._link, hello.tracked, identity.tracked)
        if self.peer.store != hello.store:
            self.peer = replace(self.peer, store=hello.store, cursor=0, gap=False)
        if self.peer.cursor > hello.feed:
            self.phase = Phase.ENDED
            return [
                Nack(code="rolled-back", message=f"your feed ends at {hello.feed}, I have {self.peer.cursor} of it")
            ]
        self.phase = Phase.SYNCING
        self.peer = replace(self.peer, offset_ms=hello.clock_ms - self._clock_ms(), seen_at=utc_text(self._world.now()))
        return [self._ask(identity)]

    def _ask(self, identity: Identity) -> Since:
        return Since(store=self.peer.store, cursor=self.peer.cursor, vv=identity.vector, max_bytes=self._batch_bytes)

    async def _since(self, since: Since) -> Sequence[Frame]:
        identity = await self._store.identity()
        if (ending := await self._renewed(identity, since.vv)) is not None:
            return ending
        if since.store != identity.store:
            self.phase = Phase.ENDED
            return [Bye(reason="renewed")]
        self._outgoing.begin(since, identity.feed)
        return await self._next()

    async def _next(self) -> Sequence[Frame]:
        """The next batches of our feed, if the peer waits for them and does not know them already."""
        if self.phase is Phase.ENDED:
            return []
        batches = await self._outgoing.batches(shares_vectors=self._whole)
        if self._outgoing.is_other:
            self.phase = Phase.ENDED
            return [Bye(reason="renewed")]
        if any(batch.recs or batch.more for batch in batches):
            self.phase = Phase.SYNCING
        if self._outgoing.is_asked:
            self.peer = replace(self.peer, acked=self._outgoing.acked)
        return batches

    async def _batch(self, batch: Batch) -> list[Frame]:
        identity = await self._store.identity()
        if (ending := await self._renewed(identity, batch.vv)) is not None:
            return ending
        if batch.start > self.peer.cursor:  # one was lost; those that were sent behind it tell nothing new
            asked, self._asked_at = self._asked_at, self.peer.cursor
            return [] if asked == self.peer.cursor else [self._ask(identity)]
        known = [record.known for record in batch.recs]
        self._check_scope([each.key for each in known])
        self._outgoing.hears(batch.vv)
        peer, cursor = self.peer, max(batch.end, self.peer.cursor)
        gap = peer.gap or peer.cursor < batch.floor
        self.peer = replace(peer, cursor=cursor, gap=gap, seen_at=utc_text(self._world.now()))
        joins = self._whole and not batch.more and not gap
        applied = await self._store.take(self.peer, known, batch.vv, joins=joins)
        self._is_hearing = batch.more
        if batch.recs or batch.more:
            self.phase = Phase.SYNCING
        ack = Ack(cursor=batch.end, applied=applied.changed, vv=applied.vector)
        return [ack, *await self._next()]

    def _check_scope(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if not self._link.reach.covers(key):
                raise Malformed(f"{key} is not in the scope of this link, or not for both ends of it")

    async def _compared(self, theirs: Digest) -> list[Frame]:
        tree = await self._look()
        if theirs.root == tree.root:
            self._equal_at, self.phase = self._tree_at, Phase.IN_SYNC
            await self._equal(tree.root)
            return [Digest(root=tree.root)] if theirs.ask else []
        self.phase = Phase.SYNCING
        if not self._outgoing.is_quiet:
            return []  # what is on its way will change it
        return mending.narrowed(tree, theirs)

    async def _equal(self, root: str) -> None:
        """Both hold the same: what was purged before it came here is gone here, too."""
        had_gap = self.peer.gap
        self._outgoing.forget_told()
        self._compared_at = self._world.monotonic()
        self.peer = replace(self.peer, root=root, gap=False, seen_at=utc_text(self._world.now()))
        if had_gap:
            await self._store.save_peer(self.peer)

    async def _mended(self, frame: StateOf) -> list[Frame]:
        known = [record.known for record in frame.recs]
        self._check_scope([each.key for each in known])
        if (ending := await self._renewed(await self._store.identity(), frame.vv)) is not None:
            return ending
        await self._store.take(self.peer, known, frame.vv, joins=False)
        answers: list[Frame] = []
        if frame.answer:
            answers = await mending.states_of(self._store, [each.key for each in known], answer=False)
        return [*answers, *await self._next()]

    def _parted(self, frame: Nack | Bye) -> list[Frame]:
        self.phase = Phase.ENDED
        if isinstance(frame, Nack):
            self.refused = (frame.code, frame.message)
        return []

    # --- the rest ------------------------------------------------------------------------------------------------

    async def _renewed(self, identity: Identity, vector: Vector) -> list[Frame] | None:
        """If the peer shows that this store was rolled back: become somebody else, and end; end, too, if it is another
        one already. None: neither."""
        why = renewal_for(identity, vector)
        if not why and self._as in ("", identity.store):
            return None
        if why:
            await self._store.renew(why)
        self.phase = Phase.ENDED
        return [Bye(reason="renewed")]

    async def _look(self) -> Tree:
        """The digests as they are now."""
        more = True
        while more:  # a record that changes meanwhile moves behind what was read, and is read again
            items, self._tree_at, more = await self._store.digests(self._link.reach, self._tree_at)
            for key, digest in items:
                self._tree.put(key, digest)
        return self._tree

    def _asks_first(self, identity: Identity) -> bool:
        return identity.node < self._link.node

    def _clock_ms(self) -> int:
        return int(self._world.now().timestamp() * 1000)

    def _end(self, frame: Frame) -> list[bytes]:
        self.phase = Phase.ENDED
        if isinstance(frame, Nack):
            self.refused = (frame.code, frame.message)
        return [encode(frame)]
