"""What people do about versions: look at conflicts and settle them; and the purge of tombstones."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from universal_registry.kernel.errors import Invalid, NotFound
from universal_registry.kernel.ids import Key
from universal_registry.storage.sync_books import Books, gone_back, identity_in
from universal_registry.storage.sync_rows import Kept, identity_of, kept_of, peer_of
from universal_registry.storage.writer import Batch
from universal_registry.sync import ledger
from universal_registry.sync.conflict import MANUAL, NEWEST, PREFER, Conflict, conflicts_of
from universal_registry.sync.identity import Identity, is_behind
from universal_registry.sync.version import Version

_MOST_ROWS = 4000


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """A record that somebody should look at. `held`: why what its versions show does not fit its kind here; then the
    record is as it was, and peers have the versions all the same. Empty when it fits."""

    key: Key
    conflicts: tuple[Conflict, ...]
    held: str = ""


class Reviews:
    """Conflicts and policies of one registry."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def policies(self, policies: Mapping[str, str]) -> Identity:
        """Set the policies for conflicts, by kind (`*`: all others). The same on all nodes. Raises Invalid."""
        for kind, policy in policies.items():
            if policy not in (MANUAL, NEWEST) and not policy.startswith(PREFER):
                raise Invalid(f"policy {policy!r:.60} of {kind}", hint=f"{MANUAL}, {NEWEST} or {PREFER}NODE")
        return await self._books.change_identity(lambda before: replace(before, policies=dict(policies)))

    async def reviews(self, limit: int, after: Key | None = None) -> list[Review]:
        """Records that somebody should look at, in order of key, behind one of them."""
        async with self._books.store.sync_view() as view:
            identity = await identity_in(view)
            rows = await view.ask("to_review", *(after or ("", "", "")), limit)
        return [_review(identity, kept_of(row)) for row in rows]

    async def keys(self, limit: int) -> list[Key]:
        """Which those are, of all: an index says so."""
        async with self._books.store.sync_view() as view:
            return [Key(*row) for row in await view.ask("keys_to_review", limit)]

    async def review(self, key: Key) -> Review | None:
        """One record. None: nothing is known of it."""
        async with self._books.store.sync_view() as view:
            identity = await identity_in(view)
            kept = (await self._books.kept(view, [key])).get(key)
        return None if kept is None else _review(identity, kept)

    async def resolve(self, key: Key, choices: Mapping[str, Version], actor: str) -> None:
        """Settle conflicts: at each path, the value of this version holds, here and, by and by, everywhere.

        Raises NotFound when nothing is known of the record, Invalid for a path that it has not, Conflict when the store
        has gone back.
        """

        async def work(batch: Batch) -> None:
            tables = batch.sync_tables()
            before = await identity_in(tables)
            if is_behind(before, self._books.seen):
                raise gone_back()
            kept = (await self._books.kept(tables, [key])).get(key)
            if kept is None:
                raise NotFound(f"{key} has no versions here", hint="see: ureg conflict ls")
            missing = choices.keys() - kept.entry.state.fields.keys()
            if missing:
                raise Invalid(f"{key} has nothing at {min(missing)}", hint="see: ureg conflict show")
            outcome = ledger.settle(before, key, kept.entry.state, choices, self._books.unix_ms())
            await self._books.apply(batch, before, outcome, actor)

        await self._books.writer.within(work)

    async def purge(self) -> int:
        """Drop tombstones that nobody needs any more, some thousand at most; how many records were concerned."""

        async def work(batch: Batch) -> int:
            tables = batch.sync_tables()
            identity = identity_of(await tables.ask("identity"))
            if identity is None:
                return 0
            acked = min((each.acked for each in map(peer_of, await tables.ask("peers"))), default=None)
            kept = [kept_of(row) for row in await tables.ask("with_tombs", 0, _MOST_ROWS)]
            held = {each.key: each.held for each in kept}
            swept = ledger.sweep(identity, [(each.key, each.entry) for each in kept], acked, self._books.unix_ms())
            gone = [tuple(key) for key, entry in swept.entries.items() if not entry.state.fields]
            left = [Kept(key, entry, held[key]) for key, entry in swept.entries.items() if entry.state.fields]
            await tables.run_each("drop_record", gone)
            if swept.entries:
                await self._books.keep(tables, swept.identity, left)
            return len(swept.entries)

        return await self._books.writer.within(work)


def _review(identity: Identity, kept: Kept) -> Review:
    found = conflicts_of(kept.entry.state, ledger.policy_of(identity, kept.key.kind))
    return Review(key=kept.key, conflicts=tuple(found), held=kept.held)
