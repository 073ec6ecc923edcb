"""Who this registry is to its peers, and when it must become somebody else. Pure decisions.

`epoch` is the identity under which it writes, `store` that under which its feed is read. Both survive a kill; neither
may survive a restored backup, for the numbers given since would be given again. A marker outside of the store tells: it
holds the nonce of the last start and the highest number that was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from universal_registry.sync.audience import Audiences
from universal_registry.sync.version import Vector

ID_DIGITS = 8


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The row that says who this registry is. `feed`: the last position given; every write takes the next one, so it
    is the number of dots, too. `floor`: below it tombstones were purged. `stamp`: the last one given. `tracked`: the
    selectors of the records that have versions; `vector`: what was seen of them. `policies`: by kind. `audiences`: who
    may have what (`audience.py`). `boot`: the nonce of this run (changes with each start)."""

    node: str
    epoch: str
    store: str
    cluster: str
    boot: str = ""
    feed: int = 0
    floor: int = 0
    stamp: int = 0
    tracked: tuple[str, ...] = ()
    policies: dict[str, str] = {}
    audiences: Audiences = {}
    vector: Vector = {}

    @property
    def origin(self) -> str:
        """Under which this registry's dots are written now."""
        return f"{self.node}-{self.epoch}"


class Marker(NamedTuple):
    """What the file outside of the store says: the nonce of the last start, and the highest number that was given."""

    boot: str
    told: int


class Renewal(StrEnum):
    """Why an identity must be minted anew. NO: it need not."""

    NO = ""
    NO_MARKER = "the marker beside the store is missing"
    OTHER_BOOT = "the store is not the one that was started last: restored or copied"
    BEHIND = "the store is behind the numbers that it has given: restored"
    PEER_KNOWS_MORE = "a peer knows more of what was written here than this store: restored"


def renewal_at_start(identity: Identity, marker: Marker | None, *, shared: bool) -> Renewal:
    """Whether the store that is being opened is the one that was closed, or killed, last. `shared`: a database
    server's, on which others start, too, each with a marker of its own: then only the numbers tell."""
    if marker is None:
        return Renewal.NO if shared else Renewal.NO_MARKER
    if marker.boot != identity.boot and not shared:
        return Renewal.OTHER_BOOT
    return Renewal.BEHIND if identity.feed < marker.told else Renewal.NO


def renewal_for(identity: Identity, vector: Mapping[str, int]) -> Renewal:
    """Whether a peer with this vector shows that the store was rolled back. To be asked before anything is sent."""
    return Renewal.PEER_KNOWS_MORE if vector.get(identity.origin, 0) > identity.feed else Renewal.NO


class Seen(NamedTuple):
    """What a process has seen committed: in which store, and up to which number. What it has told is part of it."""

    store: str = ""
    feed: int = 0


def seen_of(identity: Identity, before: Seen) -> Seen:
    """What has been seen after this, too."""
    return Seen(identity.store, max(identity.feed, before.feed if before.store == identity.store else 0))


def is_behind(identity: Identity, seen: Seen) -> bool:
    """Whether the store has gone back beneath a process that runs: a standby that lagged has taken over, say. To be
    asked of what was read after `seen` was."""
    return identity.store == seen.store and identity.feed < seen.feed


def renewed(identity: Identity, *, epoch: str, store: str) -> Identity:
    """The same node with a new epoch and a new feed: what was written before comes back from its peers."""
    return msgspec.structs.replace(identity, epoch=epoch, store=store)


class Live(NamedTuple):
    """A session that is open: whose, of which store and run."""

    node: str
    store: str
    boot: str


def is_clone(arriving: Live, live: Iterable[Live], own: Identity) -> bool:
    """Whether a session is of a copy: the same node in two runs at once, or this node itself. Both are refused then.

    A second session of the same run is a reconnect: it takes the place of the first.
    """
    if arriving.node == own.node:
        return True
    return any(each.node == arriving.node and each.boot != arriving.boot for each in live)
