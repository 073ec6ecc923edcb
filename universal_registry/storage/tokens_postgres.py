"""Access tokens in the registry store on PostgreSQL. Other daemons look every second."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.log.audit import Deed
from universal_registry.registry.tokens import Token
from universal_registry.storage.audit_postgres import append
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.sqlfiles import load_queries
from universal_registry.storage.token_rows import token_from, token_row

_SQL = load_queries("postgres/tokens.sql")
_STORE = "registry"


class PgTokens:
    """The TokenStore of one schema."""

    def __init__(self, database: PgDatabase) -> None:
        self._database = database

    async def tokens(self) -> Sequence[Token]:
        """All, by name."""
        return [token_from(row) for row in await self._database.fetch(_SQL["tokens"])]

    async def add_token(self, token: Token, told: Deed) -> None:
        """Keep it. Raises Conflict when the name is taken."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["add"], *token_row(token))
            await append(connection, _STORE, [told])

    async def remove_token(self, name: str, told: Deed) -> bool:
        """Whether there was one; it is gone now."""
        if chr(0) in name:
            return False
        async with self._database.transaction() as connection:
            found = bool(await connection.fetch(_SQL["remove"], name))
            if found:
                await append(connection, _STORE, [told])
        return found
