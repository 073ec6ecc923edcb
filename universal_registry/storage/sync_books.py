"""Where versions are kept, inside the transactions of the registry's writer, on either engine.

So a record, its line of the log and its versions are durable together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from universal_registry.kernel.errors import Conflict, Invalid, NotFound, RegistryError
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import World, utc_text
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.fold import Folding
from universal_registry.registry.operation import Operation, Request
from universal_registry.registry.ports import RecordReader
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector, parse_selector
from universal_registry.storage.sync_rows import (
    Kept,
    SyncReads,
    SyncTables,
    identity_of,
    kept_of,
    row_of_identity,
    row_of_kept,
)
from universal_registry.storage.writer import Batch
from universal_registry.sync.flapping import Flaps
from universal_registry.sync.identity import ID_DIGITS, Identity, Seen
from universal_registry.sync.ledger import Entry, Outcome, policy_of
from universal_registry.sync.projection import projected

T = TypeVar("T")
_AT_ONCE = 50
"""Records that are decided and kept before others have a turn."""


class Store(RecordReader, SyncReads, Protocol):
    """What of the registry store is read here."""


class Committer(Protocol):
    """The one writer of the store."""

    async def within(self, work: Callable[[Batch], Awaitable[T]]) -> T:
        """Run the work in a transaction of its own; what it returns, once that is durable."""
        ...

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call it after each commit."""
        ...


class Books:
    """Rows of versions, and what follows from them for records."""

    def __init__(self, store: Store, writer: Committer, catalogue: Catalogue, world: World) -> None:
        self.store = store
        self.writer = writer
        self.catalogue = catalogue
        self.world = world
        self.seen = Seen()
        """What this process has seen committed."""
        self.flaps = Flaps()
        self._selectors: dict[str, Selector] = {}

    async def identity(self) -> Identity:
        """As committed. Raises NotFound while this registry is no node."""
        async with self.store.sync_view() as view:
            return await identity_in(view)

    def selector(self, scope: str) -> Selector:
        """The scope as a selector. Raises Invalid when more than keys decides."""
        found = self._selectors.get(scope)
        if found is None:
            found = parse_selector(scope, self.catalogue)
            if not found.is_of_keys:
                raise Invalid(
                    f"the scope {scope!r:.80} does not go by keys alone",
                    hint="use kind=, namespace= and name= only: a record must not enter or leave it by a change",
                )
            self._selectors[scope] = found
        return found

    async def change_identity(self, change: Callable[[Identity], Identity]) -> Identity:
        """Be what `change` makes of who we are, durably. Raises NotFound."""

        async def work(batch: Batch) -> Identity:
            tables = batch.sync_tables()
            identity = change(await identity_in(tables))
            await tables.run_each("put_identity", [row_of_identity(identity)])
            return identity

        return await self.writer.within(work)

    async def apply(self, batch: Batch, before: Identity, outcome: Outcome, actor: str) -> None:
        """Write the records that an outcome shows, and what it keeps of them."""
        of_known_kinds = [key for key in outcome.entries if key.kind in self.catalogue.kinds]
        heads = await batch.heads(of_known_kinds) if of_known_kinds else {}
        folding = Folding(batch.head, self.catalogue, dict(heads), {})
        tables = batch.sync_tables()
        entries = iter(outcome.entries.items())
        while some := list(islice(entries, _AT_ONCE)):
            rows = self._project(folding, outcome.identity, some, heads, actor)
            await tables.run_each("put_record", [row_of_kept(row, outcome.identity) for row in rows])
            await asyncio.sleep(0)  # a batch is large, and others wait for the loop
        if folding.changes:
            await batch.write(folding.changes, folding.records)
        if outcome.identity != before:
            await tables.run_each("put_identity", [row_of_identity(outcome.identity)])

    def _project(
        self,
        folding: Folding,
        identity: Identity,
        entries: Iterable[tuple[Key, Entry]],
        heads: Mapping[Key, Record | None],
        actor: str,
    ) -> list[Kept]:
        """Decide what makes some records what their states show, as one revision; what is to be kept of them."""
        operations: list[Operation] = []
        rows: list[Kept] = []
        for key, entry in entries:
            policy, fresh = policy_of(identity, key.kind), self.world.new_id()
            done = projected(self.catalogue, key, entry.state, heads.get(key), policy=policy, fresh_uid=fresh)
            rows.append(Kept(key, entry, done.held))
            if done.operation is not None:
                operations.append(done.operation)
        if operations:
            at = utc_text(self.world.now())
            folding.add(Request(operations=tuple(operations), actor=actor, txn_id=self.world.new_id(), at=at))
            if isinstance(refused := folding.answers[-1], RegistryError):
                raise refused
        return rows

    async def kept(self, tables: SyncTables, keys: Iterable[Key]) -> dict[Key, Kept]:
        """What is kept of these records; those of which nothing is are left out."""
        rows = await tables.ask_each("record", [tuple(key) for key in dict.fromkeys(keys)])
        return {kept.key: kept for kept in map(kept_of, rows)}

    async def keep(self, tables: SyncTables, identity: Identity, rows: Sequence[Kept]) -> None:
        """Keep this of these records, and be this."""
        await tables.run_each("put_record", [row_of_kept(row, identity) for row in rows])
        await tables.run_each("put_identity", [row_of_identity(identity)])

    def unix_ms(self) -> int:
        """Now, by the wall clock."""
        return int(self.world.now().timestamp() * 1000)

    def fresh(self) -> str:
        """A new id for a node, an epoch or a store."""
        return self.world.secret_bytes(ID_DIGITS // 2).hex()


async def identity_in(tables: SyncTables) -> Identity:
    """The identity, as these tables have it. Raises NotFound while this registry is no node."""
    identity = identity_of(await tables.ask("identity"))
    if identity is None:
        raise NotFound("this registry has no peers yet", hint="invite one: ureg peer invite")
    return identity


def gone_back() -> Conflict:
    """Nothing may be built on what was seen before."""
    return Conflict("the store has gone back to an earlier state", hint="repeat it; links are opened anew")
