"""The keys of a registry on SQLite, and all that was sealed with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from universal_registry.log.audit import Deed
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.key_state import KeyRow, Keys, Rotation
from universal_registry.storage.audit_sqlite import append
from universal_registry.storage.database import Read
from universal_registry.storage.ddl import quoted
from universal_registry.storage.key_rows import (
    LINES,
    Anew,
    Found,
    answers_found,
    at_first,
    facts_found,
    key_row,
    line_after,
    lines_found,
    moved,
    pair_after,
    places,
    records_found,
    rotation_of,
    row_of_key,
    row_of_rotation,
    secret_tables,
    table_of,
)
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sqlfiles import load_queries

_SEALED_AT = 'instr(spec, \'"$sealed":"\''


class SqliteKeys:
    """KeyStore over the file of a registry."""

    def __init__(self, registry: SqliteRegistry, catalogue: Catalogue) -> None:
        self._registry = registry
        self._database = registry.database
        self._sql = load_queries("sqlite/keys.sql")
        self._places = places(catalogue)
        self._tables = [quoted(table) for table in secret_tables(catalogue)]

    async def keys(self) -> Keys:
        with self._database.snapshot():
            rows = [key_row(row) for row in self._database.read(self._sql["keys"])]
            rotation = self._database.read(self._sql["rotation"])
        return Keys(rows, rotation_of(rotation[0]) if rotation else None)

    async def begin(self, row: KeyRow, rotation: Rotation, told: Deed) -> bool:
        async with self._database.transaction():
            if self._database.execute(self._sql["rotation"]):
                return False
            self._database.execute(self._sql["save_key"], row_of_key(row))
            self._database.execute(self._sql["save_rotation"], row_of_rotation(rotation))
            append(self._database, [told])
        return True

    async def promote(
        self, rotation: Rotation, rows: tuple[KeyRow, KeyRow], facts: Mapping[str, str], told: Deed
    ) -> None:
        async with self._database.transaction():
            append(self._database, [told])
            self._database.executemany(self._sql["save_key"], [row_of_key(row) for row in rows])
            self._database.execute(self._sql["save_rotation"], row_of_rotation(rotation))
            self._database.executemany(self._sql["set_fact"], list(facts.items()))
            self._registry.changed_beside(facts)

    async def claim(self, rotation: Rotation, between: tuple[str, str]) -> bool:  # noqa: ARG002 - the file has one owner
        return True

    async def save(self, rotation: Rotation | None, told: Deed | None = None) -> None:
        async with self._database.transaction():
            self._save(rotation)
            append(self._database, [told] if told else [])

    def _save(self, rotation: Rotation | None) -> None:
        if rotation is None:
            self._database.execute(self._sql["end_rotation"])
        else:
            self._database.execute(self._sql["save_rotation"], row_of_rotation(rotation))

    # --- sealing anew --------------------------------------------------------------------------------------------

    async def reseal(self, rotation: Rotation, limit: int, anew: Anew) -> Rotation | None:
        rotation = at_first(rotation, self._places)
        found = await self._database.scan(partial(self._find, rotation, limit, anew))
        then, ended = moved(rotation, found, self._places)
        async with self._database.transaction():
            if found.updates:
                self._write(rotation.place, found)
            self._save(then)
        return None if ended else then

    def _find(self, rotation: Rotation, limit: int, anew: Anew, read: Read) -> Found:
        """Off the loop: reading, opening and sealing."""
        table = table_of(rotation.place)
        if table is not None:
            where = f"(namespace, name) > (?, ?) AND {_SEALED_AT})"
            sql = f"SELECT namespace, name, spec FROM {table} WHERE {where} ORDER BY namespace, name LIMIT ?"
            return records_found(read(sql, (*pair_after(rotation), limit)), limit, anew)
        if rotation.place == "changes":
            after = line_after(rotation)
            last, seen = read(self._sql["last_of_lines"], (after, LINES))[0]
            return lines_found(read(self._sql["lines"], (after, last or after)), last, seen, anew)
        if rotation.place == "answers":
            return answers_found(read(self._sql["answers"], (*pair_after(rotation), limit)), limit, anew)
        return facts_found(read(self._sql["facts"]), anew)

    def _write(self, place: str, found: Found) -> None:
        """Each row is written if it is still what was read: what was written meanwhile is the next pass's."""
        table = table_of(place)
        if table is not None:
            sql = f"UPDATE {table} SET spec = ? WHERE namespace = ? AND name = ? AND spec = ?"
        else:
            sql = self._sql[{"changes": "save_line", "answers": "save_answer", "facts": "save_fact"}[place]]
        self._database.execute(self._sql["open_guard"])
        self._database.executemany(sql, found.updates)
        self._database.execute(self._sql["close_guard"])
        facts = {row[1]: row[0] for row in found.updates} if place == "facts" else {}
        self._registry.changed_beside(facts)

    # --- looking -------------------------------------------------------------------------------------------------

    async def answers(self, after: tuple[str, str], limit: int) -> Sequence[tuple[str, str, str]]:
        return await self._database.scan(lambda read: read(self._sql["answers"], (*after, limit)))

    async def facts(self) -> Mapping[str, str]:
        return dict(self._database.read(self._sql["facts"]))

    # --- counting ------------------------------------------------------------------------------------------------

    async def uses(self, kids: Sequence[str]) -> Mapping[str, int]:
        return await self._database.scan(lambda read: {kid: self._count(read, kid, 0) for kid in kids})

    def _count(self, read: Read, kid: str, after: int) -> int:
        counts = [
            read(f"SELECT COUNT(*) FROM {table} WHERE {_SEALED_AT} || ? || ':')", (kid,)) for table in self._tables
        ]
        counts.append(read(self._sql["uses_in_lines"], (after, kid)))
        counts += [read(self._sql[name], (kid,)) for name in ("uses_in_answers", "uses_in_facts")]
        return sum(rows[0][0] for rows in counts)

    async def retire(self, row: KeyRow, told: Deed) -> int:
        def look(read: Read) -> tuple[int, int]:
            return self._count(read, row.kid, 0), read(self._sql["end_of_log"])[0][0]

        left, end = await self._database.scan(look)  # a long log is read off the loop, and then only what is new
        if left:
            return left
        async with self._database.transaction():
            left = self._count(self._database.execute, row.kid, end)
            if not left:
                self._database.execute(self._sql["save_key"], row_of_key(row))
                self._database.execute(self._sql["drop_wrapped"], (row.kid,))
                append(self._database, [told])
        return left
