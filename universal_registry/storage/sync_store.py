"""A registry as one of several that keep the same records: SyncStore for its sessions, on either engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from universal_registry.kernel.errors import Conflict, StorageUnavailable
from universal_registry.kernel.ids import Key
from universal_registry.log.audit import deed
from universal_registry.log.change import Change, Op
from universal_registry.registry.record import decode_record
from universal_registry.registry.selector import Selector
from universal_registry.storage.sync_books import Books, gone_back, identity_in
from universal_registry.storage.sync_marker import read_marker, write_marker
from universal_registry.storage.sync_rows import (
    Kept,
    SyncTables,
    identity_of,
    kept_of,
    peer_of,
    row_of_identity,
    row_of_kept,
    row_of_peer,
)
from universal_registry.storage.writer import Batch
from universal_registry.sync import ledger
from universal_registry.sync.audience import with_audience
from universal_registry.sync.identity import (
    Identity,
    Marker,
    Renewal,
    Seen,
    is_behind,
    renewal_at_start,
    renewed,
    seen_of,
)
from universal_registry.sync.ports import Applied, Digests, Feed, Keys, Peer
from universal_registry.sync.projection import leaves_of
from universal_registry.sync.version import NOTHING, Known, Vector, is_seen

_DAEMON = "daemon"
_PAGE = 500
_MOST_DIGESTS = 1000
_MOST_ROWS = 4000
"""Looked at for one batch of the feed, so that a long stretch of what the peer knows does not hold up others."""


class Replica:
    """SyncStore, and Versions: what sessions ask, and what the writer tells."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._marker: Path | None = None
        self._boot = ""
        self._given = self._marked = 0

    # --- who we are ----------------------------------------------------------------------------------------------

    async def identity(self) -> Identity:
        """As committed. Raises NotFound while this registry is no node."""
        seen = self._books.seen
        identity = await self._books.identity()
        return await self._part(seen) if self._is_behind(identity, seen) else identity

    def _is_behind(self, identity: Identity, seen: Seen) -> bool:
        """Whether the store has gone back since `seen`; if not, this has been seen, too."""
        if is_behind(identity, seen):
            return True
        self._books.seen = seen_of(identity, self._books.seen)
        return False

    async def _part(self, seen: Seen) -> Identity:
        """The store has gone back: become somebody else, unless another one has seen to it."""

        async def work(batch: Batch) -> Identity:
            tables = batch.sync_tables()
            before = await identity_in(tables)
            return await self._renew(tables, before, Renewal.BEHIND) if is_behind(before, seen) else before

        identity = await self._books.writer.within(work)
        self._books.seen = seen_of(identity, self._books.seen)
        return identity

    def selector(self, scope: str) -> Selector:
        """The scope as a selector. Raises Invalid when more than keys decides."""
        return self._books.selector(scope)

    async def enable(self, cluster: str, tracked: tuple[str, ...]) -> Identity:
        """Make this registry a node that keeps versions of the records in these scopes ("": all outside `system`).

        What is there gets its versions in the same transaction. Idempotent; scopes can be added later, none taken away.
        Raises Conflict when it is a node of another group, Invalid for a scope that does not go by keys alone.
        """
        for scope in tracked:
            self._books.selector(scope)

        async def work(batch: Batch) -> Identity:
            tables = batch.sync_tables()
            before = identity_of(await tables.ask("identity"))
            identity = before or Identity(
                node=self._books.fresh(),
                epoch=self._books.fresh(),
                store=self._books.fresh(),
                boot=self._books.fresh(),
                cluster=cluster,
            )
            if identity.cluster != cluster:
                raise Conflict(
                    f"this registry belongs to the group {identity.cluster}, not {cluster}",
                    hint="leave that group first, or join with another registry",
                )
            identity = replace(identity, tracked=tuple(sorted({*identity.tracked, *tracked})))
            await tables.ask("switch_on")
            identity = await self._enrol(tables, identity, tracked)
            await tables.run_each("put_identity", [row_of_identity(identity)])
            return identity

        identity = await self._books.writer.within(work)
        self._boot, self._given, self._marked = identity.boot, identity.feed, -1
        self._mark()
        return identity

    async def audience(self, scope: str, members: Sequence[str], actor: str) -> Identity:
        """Only these nodes may have the records of the scope from now on; none: all may. Audited. Raises NotFound,
        Invalid."""
        self._books.selector(scope)

        async def work(batch: Batch) -> Identity:
            tables = batch.sync_tables()
            before = await identity_in(tables)
            identity = replace(before, audiences=with_audience(before.audiences, scope, members))
            await tables.run_each("put_identity", [row_of_identity(identity)])
            what = {"scope": scope, "members": list(identity.audiences.get(scope, ()))}
            await tables.record([deed(self._books.world, actor, "peer.audience", f"node {identity.node}", **what)])
            return identity

        return await self._books.writer.within(work)

    async def _enrol(self, tables: SyncTables, identity: Identity, scopes: Sequence[str]) -> Identity:
        """Versions for the records that have none. Nobody else writes: the transaction holds the head."""
        now = self._books.unix_ms()
        for scope in scopes:
            async for page in self._books.store.pages(self._books.selector(scope), size=_PAGE):
                known = await self._books.kept(tables, [record.key for record in page.records])
                rows = []
                for record in page.records:
                    if record.key not in known:
                        leaves = leaves_of(self._books.catalogue, record)
                        identity, entries = ledger.note(identity, record.key, NOTHING, leaves, now)
                        rows += [Kept(key, entry, "") for key, entry in entries.items()]
                await tables.run_each("put_record", [row_of_kept(row, identity) for row in rows])
        return identity

    def keep_marker(self, marker: Path) -> None:
        """Where the marker stands: also of a registry that becomes a node only later."""
        if self._marker is None:
            self._books.writer.on_commit(self._mark_soon)
        self._marker = marker

    async def start(self, marker: Path, *, shared: bool) -> Renewal | None:
        """When a daemon starts, before any session: become somebody else if the store was restored or copied; why.
        None: this registry is no node. `shared`: other daemons may have started on the same store meanwhile."""
        found = read_marker(marker)
        self.keep_marker(marker)

        async def work(batch: Batch) -> tuple[Identity, Renewal] | None:
            tables = batch.sync_tables()
            identity = identity_of(await tables.ask("identity"))
            if identity is None:
                return None
            why = renewal_at_start(identity, found, shared=shared)
            if not shared:
                identity = replace(identity, boot=self._books.fresh())
            if why:
                return await self._renew(tables, identity, why), why
            await tables.run_each("put_identity", [row_of_identity(identity)])
            return identity, why

        started = await self._books.writer.within(work)
        if started is None:
            return None
        identity, why = started
        self._boot, self._given, self._marked = identity.boot, identity.feed, -1
        self._mark()
        return why

    def _mark_soon(self) -> None:
        """After a commit. What is done is done: a marker that cannot be written ends what would tell of it."""
        with suppress(StorageUnavailable):
            self._mark()

    def _mark(self) -> None:
        """Before anything leaves, too: the marker says which numbers were given. Raises StorageUnavailable."""
        if self._marker is not None and self._boot and self._given > self._marked:
            write_marker(self._marker, Marker(self._boot, self._given))
            self._marked = self._given

    async def renew(self, why: Renewal) -> Identity:
        """Become somebody else, durably."""
        assert why

        async def work(batch: Batch) -> Identity:
            tables = batch.sync_tables()
            return await self._renew(tables, await identity_in(tables), why)

        return await self._books.writer.within(work)

    async def _renew(self, tables: SyncTables, before: Identity, why: Renewal) -> Identity:
        identity = self._another(before)
        await tables.run_each("put_identity", [row_of_identity(identity)])
        await self._record(tables, before, identity, why)
        return identity

    def _another(self, before: Identity) -> Identity:
        self._marked = -1
        return renewed(before, epoch=self._books.fresh(), store=self._books.fresh())

    async def _record(self, tables: SyncTables, before: Identity, identity: Identity, why: Renewal) -> None:
        what = {"why": str(why), "before": before.origin, "after": identity.origin}
        await tables.record([deed(self._books.world, _DAEMON, "node.renew", f"node {identity.node}", **what)])

    # --- writes here ---------------------------------------------------------------------------------------------

    async def note(self, batch: Batch, changes: Sequence[Change]) -> None:
        """The writer wrote these lines: give the records in scope their versions, in the same transaction."""
        if not batch.synced:
            return
        tables = batch.sync_tables()
        before = identity_of(await tables.ask("identity"))
        if before is None:
            return
        identity = self._another(before) if is_behind(before, self._books.seen) else before
        chosen = [each for each in changes if each.op is not Op.EVENT and self._is_tracked(identity, each.key)]
        if not chosen:
            return
        kept = await self._books.kept(tables, [each.key for each in chosen])
        entries = {key: each.entry for key, each in kept.items()}
        made = {key: each.entry for key, each in kept.items() if each.held}
        """Those that were held fit now, for here is their line, whether that changes a version or only a secret."""
        for change in chosen:
            assert change.body is not None
            is_put = change.op is Op.PUT
            leaves = leaves_of(self._books.catalogue, decode_record(change.body)) if is_put else None
            state = entries[change.key].state if change.key in entries else NOTHING
            identity, more = ledger.note(identity, change.key, state, leaves, self._books.unix_ms())
            if more:
                self._books.flaps.changed(change.key, "", self._books.world.monotonic())
            entries.update(more)
            made.update(more)
        if made:
            await self._books.keep(tables, identity, [Kept(key, entry, "") for key, entry in made.items()])
            self._given = identity.feed
            if identity.store != before.store:
                await self._record(tables, before, identity, Renewal.BEHIND)

    def _is_tracked(self, identity: Identity, key: Key) -> bool:
        return any(self._books.selector(scope).covers(key) for scope in identity.tracked)

    # --- for sessions --------------------------------------------------------------------------------------------

    async def peer(self, node: str) -> Peer:
        """What is kept of a peer; a new one when nothing is."""
        return next((peer for peer in await self.peers() if peer.node == node), Peer(node=node))

    def to_and_fro(self) -> dict[Key, str]:
        """Records that have begun to be changed here and at a peer by turns, each with its node; told once."""
        return self._books.flaps.tripped()

    async def peers(self) -> list[Peer]:
        """All peers that anything is kept of."""
        async with self._books.store.sync_view() as view:
            return [peer_of(row) for row in await view.ask("peers")]

    async def save_peer(self, peer: Peer) -> None:
        """Keep this of a peer, but for its place in its feed, which moves with `take` alone."""

        async def work(batch: Batch) -> None:
            tables = batch.sync_tables()
            kept = {each.node: each for each in map(peer_of, await tables.ask("peers"))}.get(peer.node)
            found = kept or Peer(node=peer.node)
            place = {"store": found.store, "cursor": found.cursor, "audiences": found.audiences}
            made = replace(peer, **place)
            if made != kept:
                await tables.run_each("put_peer", [row_of_peer(made)])

        await self._books.writer.within(work)

    async def forget_peer(self, node: str) -> None:
        """Nobody waits for this peer any more; it starts anew if it comes back."""

        async def work(batch: Batch) -> None:
            await batch.sync_tables().run_each("drop_peer", [(node,)])

        await self._books.writer.within(work)

    async def feed(self, scope: Keys, after: int, seen: Vector, max_bytes: int) -> Feed:
        """What changed in the scope behind a position, without what `seen` covers, from one state."""
        before = self._books.seen
        async with self._books.store.sync_view() as view:
            identity = await identity_in(view)
            records, end, more = await self._changed(view, scope, after, seen, max_bytes)
        if self._is_behind(identity, before):
            identity, records, end, more = await self._part(before), [], after, False
        elif not more:
            end = identity.feed
        if records or not more:
            self._tells(identity)
        return Feed(records, end, more, identity.vector, identity.floor, identity.store)

    async def _changed(
        self, view: SyncTables, scope: Keys, after: int, seen: Vector, max_bytes: int
    ) -> tuple[list[Known], int, bool]:
        """Some records, how far that goes, and whether there is more."""
        records: list[Known] = []
        size = looked = 0
        while looked < _MOST_ROWS:
            rows = await view.ask("feed", after, _PAGE)
            for row in rows:
                key, (state, position), _ = kept_of(row)
                wanted = scope.covers(key) and not is_seen(state, seen)
                if wanted and records and size + len(row[4]) > max_bytes:
                    return records, after, True
                after = position
                if wanted:
                    records.append(Known(key, state))
                    size += len(row[4])
            looked += len(rows)
            if len(rows) < _PAGE:
                return records, after, False
        return records, after, True

    def _tells(self, identity: Identity) -> None:
        """Before anything leaves, that others of this database may have written: the marker says so."""
        self._given = max(self._given, identity.feed)
        self._mark()

    async def states(self, keys: Sequence[Key]) -> tuple[list[Known], Vector]:
        """All that is known of some records, and the vector, from one state. Raises Conflict."""
        seen = self._books.seen
        async with self._books.store.sync_view() as view:
            identity = await identity_in(view)
            kept = await self._books.kept(view, keys)
        if self._is_behind(identity, seen):
            await self._part(seen)
            raise gone_back()
        self._tells(identity)
        return [Known(key, kept[key].entry.state if key in kept else NOTHING) for key in keys], identity.vector

    async def digests(self, scope: Keys, after: int) -> Digests:
        """The digests of what changed in the scope behind a position, a part of them at a time."""
        async with self._books.store.sync_view() as view:
            rows = await view.ask("digests", after, _MOST_DIGESTS)
        await asyncio.sleep(0)  # whoever wants all of a large store is not alone here
        items: list[tuple[Key, int]] = []
        for kind, namespace, name, position, digest in rows:
            after = position
            if scope.covers(key := Key(kind, namespace, name)):
                items.append((key, int(digest, 16)))
        return Digests(items, after, len(rows) == _MOST_DIGESTS)

    async def take(self, peer: Peer, records: Sequence[Known], vector: Vector, *, joins: bool) -> Applied:
        """Merge what a peer sent, make the records what their versions show, and move the peer's cursor: at once.
        Raises Conflict when the store is not the one any more on which the peer's place stands."""

        async def work(batch: Batch) -> tuple[Identity, int] | None:
            tables = batch.sync_tables()
            before = await identity_in(tables)
            if is_behind(before, self._books.seen):
                await self._renew(tables, before, Renewal.BEHIND)
                return None
            kept = await self._books.kept(tables, [each.key for each in records])
            states = {key: each.entry.state for key, each in kept.items()}
            outcome = ledger.take(before, states, records, vector, joins=joins)
            await self._books.apply(batch, before, outcome, f"peer:{peer.node}")
            await tables.run_each("put_peer", [row_of_peer(peer)])
            self._given = outcome.identity.feed
            for key in outcome.entries:
                self._books.flaps.changed(key, peer.node, self._books.world.monotonic())
            return outcome.identity, len(outcome.entries)

        taken = await self._books.writer.within(work)
        if taken is None:
            raise gone_back()
        identity, changed = taken
        self._books.seen = seen_of(identity, self._books.seen)
        return Applied(changed, identity.vector)
