"""What both engines share in keeping versions: the port that their transactions offer, and rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.audit import Deed
from universal_registry.sync.conflict import conflicts_of
from universal_registry.sync.digest import digest_of, text_of
from universal_registry.sync.identity import Identity
from universal_registry.sync.ledger import Entry, policy_of, tombstones_in
from universal_registry.sync.ports import Peer
from universal_registry.sync.version import State


class SyncTables(Protocol):
    """The queries of `sync.sql`, inside one transaction or over one committed state."""

    async def ask(self, name: str, *params: Any) -> Sequence[Sequence[Any]]:
        """The rows of a query."""
        ...

    async def ask_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
        """The rows of a query that is asked for each of `params`."""
        ...

    async def run_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement for each of `params`."""
        ...

    async def record(self, deeds: Sequence[Deed]) -> None:
        """Write deeds down for the audit, as the last thing in the transaction."""
        ...


class SyncTransaction(Protocol):
    """The part of a batch that is about versions."""

    synced: bool
    """False: nobody has ever made this registry a node."""

    def sync_tables(self) -> SyncTables: ...


class SyncReads(Protocol):
    """A store that shows its versions."""

    def sync_view(self) -> AbstractAsyncContextManager[SyncTables]:
        """One committed state."""
        ...


class Kept(NamedTuple):
    """A row: what is kept of one record. `held`: why it does not fit its kind here; empty when it does."""

    key: Key
    entry: Entry
    held: str


_identity = msgspec.json.Decoder(Identity)
_peer = msgspec.json.Decoder(Peer)
_state = msgspec.json.Decoder(State)
_encode = msgspec.json.Encoder(order="sorted").encode


def identity_of(rows: Sequence[Sequence[Any]]) -> Identity | None:
    """The identity, from the rows of its query."""
    return _identity.decode(rows[0][0]) if rows else None


def row_of_identity(identity: Identity) -> tuple[Any, ...]:
    """The columns of `put_identity`."""
    return (_encode(identity).decode(),)


def peer_of(row: Sequence[Any]) -> Peer:
    """A peer, from its columns."""
    return _peer.decode(row[1])


def row_of_peer(peer: Peer) -> tuple[Any, ...]:
    """The columns of `put_peer`."""
    return (peer.node, _encode(peer).decode())


def kept_of(row: Sequence[Any]) -> Kept:
    """What is kept of a record, from its columns."""
    kind, namespace, name, position, state, held = row
    return Kept(Key(kind, namespace, name), Entry(_state.decode(state), position), held)


def row_of_kept(kept: Kept, identity: Identity) -> tuple[Any, ...]:
    """The columns of `put_record`."""
    key, (state, position), held = kept
    digest = text_of(digest_of(key, state, identity.cluster.encode()))
    reviews = len(conflicts_of(state, policy_of(identity, key.kind)))
    return (*key, position, digest, tombstones_in(state), reviews, held, _encode(state).decode())
