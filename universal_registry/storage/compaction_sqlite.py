"""Compaction of the change log on SQLite: short transactions on the loop, long looks in a thread."""

from __future__ import annotations

from universal_registry.log.audit import Deed
from universal_registry.log.horizon import Horizon
from universal_registry.registry.compaction import Figures, Size, Step
from universal_registry.storage.audit_sqlite import append
from universal_registry.storage.batch_sqlite import position_of
from universal_registry.storage.database import Read
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("sqlite/compaction.sql")
_WORTH_IT = 0.1
"""Of the file, so much must be free for it to be written anew."""


class SqliteHistory:
    """HistoryStore over the file of a registry."""

    def __init__(self, registry: SqliteRegistry) -> None:
        self._registry = registry
        self._database = registry.database

    async def born(self, after: int, upto: int) -> int:
        """By the lines between two revisions, how many records more there were then."""
        where = (position_of(after + 1, 0) - 1, position_of(upto + 1, 0))
        born: int = await self._database.scan(lambda read: read(_SQL["born"], where)[0][0])
        return born

    async def declare(self, before: Horizon, after: Horizon, told: Deed) -> bool:
        """Move the horizon, if it is still where it was."""
        async with self._database.transaction():
            if self._database.execute(_SQL["horizon"]) != [(before.values, before.lines, before.hash, before.living)]:
                return False
            self._database.execute(_SQL["declare"], (after.values, after.lines, after.hash, after.living))
            append(self._database, [told])
        return True

    async def drop_values(self, limit: int) -> Step:
        """One step."""
        (values, _, done, _) = self._database.read(_SQL["progress"])[0]
        return await self._step("drop_values", "dropped_to", done, values, limit)

    async def remove_lines(self, limit: int) -> Step:
        """One step."""
        (_, lines, _, done) = self._database.read(_SQL["progress"])[0]
        return await self._step("remove_lines", "removed_to", done, lines, limit)

    async def _step(self, what: str, mark: str, done: int, upto: int, limit: int) -> Step:
        end = position_of(upto + 1, 0)
        last, seen = self._database.read(_SQL["last"], (done, end, limit))[0]
        if not seen:
            return Step(0, more=False)
        async with self._database.transaction():
            self._database.execute(_SQL["open_guard"])
            gone = self._database.execute(_SQL[what], {"after": done, "upto": last})
            self._database.execute(_SQL["close_guard"])
            self._database.execute(_SQL[mark], (last,))
            self._registry.lines_changed()
        return Step(len(gone), more=seen == limit)

    async def foresee(self, values: int, lines: int) -> Figures:
        """Reads all lines that would be looked at, in a thread."""

        def work(read: Read) -> Figures:
            _, _, dropped, removed = read(_SQL["progress"])[0]
            of_values = {"after": dropped, "upto": position_of(values + 1, 0)}
            of_lines = {"after": removed, "upto": position_of(lines + 1, 0)}
            count, size = read(_SQL["values_foreseen"], of_values)[0]
            return Figures(values=count, bytes=size, lines=read(_SQL["lines_foreseen"], of_lines)[0][0])

        return await self._database.scan(work)

    async def size(self) -> Size:
        """Of the file."""

        def work(read: Read) -> Size:
            pages, free, page = (read(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size"))
            return Size(lines=read(_SQL["lines"])[0][0], bytes=pages * page, free=free * page)

        return await self._database.scan(work)

    async def give_back(self) -> bool:
        """Write the file anew without its free pages, where they are a good part of it."""
        size = await self.size()
        if (size.free or 0) >= _WORTH_IT * size.bytes:
            await self._database.vacuum()
        return True
