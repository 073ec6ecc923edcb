"""PostgreSQL's errors as ours. The password is in none of them: asyncpg's own texts do not hold it, nor do ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from universal_registry.kernel.errors import (
    Conflict,
    Corrupt,
    ReadOnlyStore,
    RegistryError,
    StorageFull,
    StorageUnavailable,
    StoreLocked,
)

NO_CONNECTION = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""What ends a connection, or keeps one from being made: the next attempt may well succeed."""


def lost(error: BaseException) -> bool:
    """Whether the connection is at fault, and not what was asked of it."""
    return isinstance(error, NO_CONNECTION) and not isinstance(error, asyncpg.DataError)


TRIED_AGAIN = "it is tried again by itself"
_READ_ONLY = ("25006", "42501")
_LOCKED = ("55P03", "40001", "40P01")
_UNFIT = ("22", "23", "54", "P0")  # by class: the values, a constraint, a limit of the engine, our own triggers
_MISCONFIGURED = ("28", "3D")  # by class: the role or its password, the database's name


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Errors of the driver as ours. `place` names the database."""
    try:
        yield
    except (asyncpg.PostgresError, *NO_CONNECTION) as error:
        raise translate(error, place) from error


def translate(error: BaseException, place: str) -> RegistryError:
    """The error of our tree that one of the driver's stands for. `data["sqlstate"]` is its code ("" when none came)."""
    code = getattr(error, "sqlstate", None) or ""
    text = str(error).strip() or type(error).__name__
    if code == "53100":
        return StorageFull(f"no space left for {place}", hint="free some space; writes then work again", sqlstate=code)
    if code in _READ_ONLY:
        return ReadOnlyStore(
            f"{place} cannot be written: {text}", hint="a standby? else check the role's rights", sqlstate=code
        )
    if code in _LOCKED:
        return StoreLocked(f"{place} is locked by another session: {text}", hint="try again", sqlstate=code)
    if code.startswith("XX") and code != "XX000":
        return Corrupt(f"{place} is damaged: {text}", hint="restore it from a backup", sqlstate=code)
    if code.startswith(_UNFIT) or isinstance(error, asyncpg.DataError):
        return Conflict(text, sqlstate=code)
    if code.startswith(_MISCONFIGURED):
        hint = "check REGISTRY_DB_HOST, REGISTRY_DB_NAME, REGISTRY_DB_USER and REGISTRY_DB_PASSWORD"
        return StorageUnavailable(f"{place} does not let us in: {text}", hint=hint, sqlstate=code)
    if lost(error):
        return StorageUnavailable(f"{place} cannot be reached: {text}", hint=TRIED_AGAIN, sqlstate=code)
    return StorageUnavailable(f"{place}: {text}", sqlstate=code)
