"""Access tokens as rows of the registry store, and back; the same on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.registry.tokens import Token


def token_row(token: Token) -> tuple[Any, ...]:
    """The columns of the query add."""
    return (token.name, token.hash, ",".join(token.scopes), token.created_at, token.created_by, token.expires_at)


def token_from(row: Sequence[Any]) -> Token:
    """A row of the query tokens."""
    name, hashed, scopes, created_at, created_by, expires_at = row
    return Token(
        name=name,
        hash=hashed,
        scopes=tuple(scopes.split(",")),
        created_at=created_at,
        created_by=created_by,
        expires_at=expires_at,
    )
