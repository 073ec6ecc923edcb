"""The keys of a registry on PostgreSQL, and all that was sealed with them. Several daemons may be at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from universal_registry.log.audit import Deed
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.key_state import KeyRow, Keys, Rotation
from universal_registry.storage.audit_postgres import append
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
from universal_registry.storage.postgres import PgConnection
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("postgres/keys.sql")
_STORE = "registry"
_SEALED_AT = 'strpos(spec, \'"$sealed":"\''


class PgKeys:
    """KeyStore over the schema of a registry."""

    def __init__(self, registry: PostgresRegistry, catalogue: Catalogue) -> None:
        self._registry = registry
        self._database = registry.database
        self._places = places(catalogue)
        self._tables = [quoted(table) for table in secret_tables(catalogue)]

    async def keys(self) -> Keys:
        async with self._database.snapshot() as connection:
            rows = [key_row(tuple(row)) for row in await connection.fetch(_SQL["keys"])]
            rotation = await connection.fetchrow(_SQL["rotation"])
        await self._registry.read_facts()
        return Keys(rows, rotation_of(tuple(rotation)) if rotation else None)

    async def begin(self, row: KeyRow, rotation: Rotation, told: Deed) -> bool:
        async with self._database.transaction() as connection:
            if await connection.fetchval(_SQL["begin_rotation"], *row_of_rotation(rotation)) is None:
                return False
            await connection.execute(_SQL["save_key"], *row_of_key(row))
            await append(connection, _STORE, [told])
        return True

    async def promote(
        self, rotation: Rotation, rows: tuple[KeyRow, KeyRow], facts: Mapping[str, str], told: Deed
    ) -> None:
        async with self._database.transaction() as connection:
            if await connection.fetchval(_SQL["save_rotation"], *row_of_rotation(rotation)) is None:
                return  # another daemon has taken it over
            await connection.executemany(_SQL["save_key"], [row_of_key(row) for row in rows])
            await connection.executemany(_SQL["set_fact"], list(facts.items()))
            await append(connection, _STORE, [told])
        await self._registry.read_facts()

    async def claim(self, rotation: Rotation, between: tuple[str, str]) -> bool:
        async with self._database.transaction() as connection:
            return await connection.fetchval(_SQL["claim"], rotation.by, rotation.at, *between) is not None

    async def save(self, rotation: Rotation | None, told: Deed | None = None) -> None:
        async with self._database.transaction() as connection:
            if rotation is None:
                await connection.execute(_SQL["end_rotation"])
            else:
                await connection.fetchval(_SQL["save_rotation"], *row_of_rotation(rotation))
            await append(connection, _STORE, [told] if told else [])

    # --- sealing anew --------------------------------------------------------------------------------------------

    async def reseal(self, rotation: Rotation, limit: int, anew: Anew) -> Rotation | None:
        rotation = at_first(rotation, self._places)
        async with self._database.snapshot() as connection:
            look = await self._read(connection, rotation, limit)
        found = await asyncio.to_thread(look, anew)  # opening and sealing so many takes a while
        then, ended = moved(rotation, found, self._places)
        async with self._database.transaction() as connection:
            if found.updates:
                await self._write(connection, rotation.place, found)
            await connection.fetchval(_SQL["save_rotation"], *row_of_rotation(then))
        return None if ended else then

    async def _read(self, connection: PgConnection, rotation: Rotation, limit: int) -> Callable[[Anew], Found]:
        """The rows that come next; what is to be found in them is said by the function."""
        table = table_of(rotation.place)
        if table is not None:
            where = f"(namespace, name) > ($1, $2) AND {_SEALED_AT}) > 0"
            sql = f"SELECT namespace, name, spec FROM {table} WHERE {where} ORDER BY namespace, name LIMIT $3"
            rows = await connection.fetch(sql, *pair_after(rotation), limit)
            return lambda anew: records_found(rows, limit, anew)
        if rotation.place == "changes":
            after = line_after(rotation)
            last, seen = await connection.fetchrow(_SQL["last_of_lines"], after, LINES)
            rows = await connection.fetch(_SQL["lines"], after, last or after)
            return lambda anew: lines_found(rows, last, seen, anew)
        if rotation.place == "answers":
            rows = await connection.fetch(_SQL["answers"], *pair_after(rotation), limit)
            return lambda anew: answers_found(rows, limit, anew)
        rows = await connection.fetch(_SQL["facts"])
        return lambda anew: facts_found(rows, anew)

    async def _write(self, connection: PgConnection, place: str, found: Found) -> None:
        """Each row is written if it is still what was read: what was written meanwhile is the next pass's."""
        table = table_of(place)
        if table is not None:
            sql = f"UPDATE {table} SET spec = $1 WHERE namespace = $2 AND name = $3 AND spec = $4"
        else:
            sql = _SQL[{"changes": "save_line", "answers": "save_answer", "facts": "save_fact"}[place]]
        await connection.execute(_SQL["write"])
        await connection.executemany(sql, found.updates)

    # --- looking -------------------------------------------------------------------------------------------------

    async def answers(self, after: tuple[str, str], limit: int) -> Sequence[tuple[str, str, str]]:
        return [tuple(row) for row in await self._database.fetch(_SQL["answers"], *after, limit)]

    async def facts(self) -> Mapping[str, str]:
        return dict(map(tuple, await self._database.fetch(_SQL["facts"])))

    # --- counting ------------------------------------------------------------------------------------------------

    async def uses(self, kids: Sequence[str]) -> Mapping[str, int]:
        async with self._database.snapshot() as connection:
            return {kid: await self._count(connection, kid) for kid in kids}

    async def _count(self, connection: PgConnection, kid: str) -> int:
        where = f"{_SEALED_AT} || $1::text || ':') > 0"
        counts = [await connection.fetchval(f"SELECT count(*) FROM {each} WHERE {where}", kid) for each in self._tables]
        names = ("uses_in_lines", "uses_in_answers", "uses_in_facts")
        return sum(counts + [await connection.fetchval(_SQL[name], kid) for name in names])

    async def retire(self, row: KeyRow, told: Deed) -> int:
        async with self._database.transaction() as connection:
            await connection.fetchval(_SQL["lock_head"])
            left = await self._count(connection, row.kid)
            if not left:
                await connection.execute(_SQL["save_key"], *row_of_key(row))
                await connection.execute(_SQL["drop_wrapped"], row.kid)
                await append(connection, _STORE, [told])
        return left
