"""Access tokens in the registry store on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.log.audit import Deed
from universal_registry.registry.tokens import Token
from universal_registry.storage.audit_sqlite import append
from universal_registry.storage.database import Database
from universal_registry.storage.sqlfiles import load_queries
from universal_registry.storage.token_rows import token_from, token_row

_SQL = load_queries("sqlite/tokens.sql")


class SqliteTokens:
    """The TokenStore of one file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tokens(self) -> Sequence[Token]:
        """All, by name."""
        return [token_from(row) for row in self._database.read(_SQL["tokens"])]

    async def add_token(self, token: Token, told: Deed) -> None:
        """Keep it. Raises Conflict when the name is taken."""
        async with self._database.transaction():
            self._database.execute(_SQL["add"], token_row(token))
            append(self._database, [told])

    async def remove_token(self, name: str, told: Deed) -> bool:
        """Whether there was one; it is gone now."""
        async with self._database.transaction():
            found = bool(self._database.execute(_SQL["remove"], (name,)))
            if found:
                append(self._database, [told])
        return found
