"""Our feed, as one peer is sent it: batches in order, some of which are on their way at once.

What comes from the peer meanwhile moves the records that it is merged into to the end of our feed. Those that hold
nothing but what the peer was told here, or tells itself, do not go back to it.
"""

from __future__ import annotations

from collections import deque

from universal_registry.kernel.errors import Malformed
from universal_registry.kernel.ids import Key
from universal_registry.sync.ports import Keys, SyncStore
from universal_registry.sync.protocol import BATCH_BYTES, Ack, Batch, Since, record_of
from universal_registry.sync.version import Known, Vector, beyond, covers, joined

WINDOW = 4
"""Batches that may be on their way: while the peer stores one, the next are read, sent, and wait there."""
_MOST_SENT = 20_000
"""Records of which it is kept that they were sent; those of before are sent once too often at most."""


class Outgoing:
    """`seen`: what the peer has said that it has seen. `acked`: how far it has our feed."""

    def __init__(self, store: SyncStore, reach: Keys) -> None:
        self.seen: Vector = {}
        self.acked = 0
        self._store = store
        self._reach = reach
        self.is_asked = False
        self.is_other = False
        """Whether the store has become another one than the peer has asked for: nothing more of it may be sent here."""
        self._of = ""
        self._max_bytes = BATCH_BYTES
        self._read = 0
        """How far the feed was looked through. What lies between the end of the last batch and here the peer knows."""
        self._end = 0
        self._flying: deque[int] = deque()
        """The ends of the batches that are not acknowledged yet, in order."""
        self._sent: dict[Key, Vector] = {}
        """What was sent since the peer asked, each with our vector of then: so much of it the peer has seen, once it
        has what comes next."""
        self._told: Vector = {}
        """The vector that it was sent last: with a gap in what it has of our feed, it does not take it over."""

    @property
    def is_quiet(self) -> bool:
        """Whether the peer waits for our feed, and nothing of it is on its way."""
        return self.is_asked and not self._flying

    def begin(self, since: Since, feed_end: int) -> None:
        """The peer asks for what is behind its place; also when something on its way was lost. Raises Malformed."""
        if since.cursor > feed_end:
            raise Malformed(f"a cursor at {since.cursor}, the feed ends at {feed_end}")
        self.is_asked, self.seen, self._of = True, since.vv, since.store
        self._read = self._end = self.acked = since.cursor
        self._flying.clear()
        self._sent.clear()
        self._told = {}
        self._max_bytes = max(1, min(since.max_bytes, BATCH_BYTES))

    def hears(self, vector: Vector) -> None:
        """The peer has said that it has seen this."""
        self.seen = joined(self.seen, vector)

    def acknowledged(self, ack: Ack) -> bool:
        """Whether it is of a batch that is on its way: then that one, and those before it, have arrived."""
        if ack.cursor not in self._flying:
            return False
        while self._flying.popleft() != ack.cursor:
            pass
        self.acked = ack.cursor
        self.hears(ack.vv)
        if not self._flying:
            self._sent.clear()
        return True

    def forget_told(self) -> None:
        """Both hold the same: should the vector move again, it is sent again."""
        self._told = {}

    async def batches(self, *, shares_vectors: bool) -> list[Batch]:
        """What is to be sent now: nothing that the peer knows, and no more than may be on its way."""
        made: list[Batch] = []
        while self.is_asked and len(self._flying) < WINDOW:
            batch = await self._next(shares_vectors=shares_vectors)
            if batch is not None:
                made.append(batch)
            if batch is None or not batch.more:
                break
        return made

    async def _next(self, *, shares_vectors: bool) -> Batch | None:
        feed = await self._store.feed(self._reach, self._read, self.seen, self._max_bytes)
        if feed.store != self._of:
            self.is_other = True
            return None
        self._read = feed.end
        news = shares_vectors and not feed.more and beyond(feed.vector, joined(self.seen, self._told))
        known = feed.records
        if shares_vectors:  # else its place must move beyond them, for they would come again with the next session
            known = [each for each in known if not self._was_sent(each)]
        if not known and not feed.more and not news:
            if not self._flying:
                self.acked = feed.end
            return None
        if not feed.more:
            self._told = feed.vector
        start, self._end = self._end, feed.end
        self._flying.append(feed.end)
        if len(self._sent) > _MOST_SENT:
            self._sent.clear()
        self._sent.update((each.key, feed.vector) for each in known)
        records = tuple(map(record_of, known))
        return Batch(start=start, end=feed.end, more=feed.more, vv=feed.vector, floor=feed.floor, recs=records)

    def _was_sent(self, known: Known) -> bool:
        vector = self._sent.get(known.key)
        return vector is not None and all(
            covers(vector, version) or covers(self.seen, version)
            for versions in known.state.fields.values()
            for version in versions
        )
