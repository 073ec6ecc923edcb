"""What sessions need of a store. Both engines satisfy it by shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.sync.identity import Identity, Renewal
from universal_registry.sync.version import Known, Vector


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of one peer. `store`, `cursor`: how far its feed was taken in, and by which `audiences` (a mark:
    what others left out must come before its vector is taken over); `gap`: tombstones were purged of it that never
    came here, and no comparison has mended that yet. `acked`: how far it has our feed. `seen_at`: when it was last
    heard of (RFC 3339); empty: never. `root`: the last one that was equal on both sides."""

    node: str
    scope: str = ""
    store: str = ""
    cursor: int = 0
    audiences: str = ""
    gap: bool = False
    acked: int = 0
    offset_ms: int = 0
    root: str = ""
    seen_at: str = ""


class Keys(Protocol):
    """Some records, by their keys."""

    def covers(self, key: Key) -> bool:
        """Whether the record of that key is one of them."""
        ...


class Feed(NamedTuple):
    """A part of the feed, from one state of the store: records, how far it goes, whether there is more; the vector, the
    floor, and under which id (`Identity.store`) it is read."""

    records: list[Known]
    end: int
    more: bool
    vector: Vector
    floor: int
    store: str


class Applied(NamedTuple):
    """What taking something in came to: records that changed, and the vector."""

    changed: int
    vector: Vector


class Digests(NamedTuple):
    """The digests of records that changed behind a position, the position up to which that is all, and whether there is
    more behind it."""

    items: list[tuple[Key, int]]
    position: int
    more: bool


class SyncStore(Protocol):
    """Versions, peers and identity of one registry. Of a store that has gone back beneath it nothing is told: it
    becomes somebody else first, which whoever asked sees by `Identity.store`, or by Conflict."""

    async def identity(self) -> Identity:
        """As committed. Raises NotFound while this registry has none (nobody has enabled it)."""
        ...

    async def peer(self, node: str) -> Peer:
        """What is stored of a peer; a new one when nothing is."""
        ...

    async def save_peer(self, peer: Peer) -> None:
        """Store this of a peer, but for `store` and `cursor`: the place in its feed moves with `take` alone."""
        ...

    async def feed(self, scope: Keys, after: int, seen: Vector, max_bytes: int) -> Feed:
        """What changed in the scope behind a position, without what `seen` covers; at least one record if there is."""
        ...

    async def states(self, keys: Sequence[Key]) -> tuple[list[Known], Vector]:
        """All that is known of some records (no fields: nothing), and the vector, from one state of the store."""
        ...

    async def take(self, peer: Peer, records: Sequence[Known], vector: Vector, *, joins: bool) -> Applied:
        """Merge records that were sent with the sender's vector, and store the peer with its place: ONE
        transaction, durable when it returns. `joins`: the sender's vector becomes part of ours, in the same."""
        ...

    async def digests(self, scope: Keys, after: int) -> Digests:
        """For keeping a digest tree."""
        ...

    async def renew(self, why: Renewal) -> Identity:
        """Become somebody else (a new epoch and store id), durably and audited."""
        ...
