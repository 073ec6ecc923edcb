"""A home: its folders, and the administrator's token."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from universal_registry.kernel.errors import NotFound, ReadOnlyStore, StorageFull
from universal_registry.kernel.settings import Places
from universal_registry.kernel.world import World
from universal_registry.security.tokens import hash_token, new_token
from universal_registry.storage.durable import drop_empty, new_file
from universal_registry.storage.keyfile import private_folder
from universal_registry.storage.replacing import half_moved, holds, is_pending, moved_aside


def is_initialised(places: Places, key: Path, *, files: bool = True) -> bool:
    """Whether there is a registry here. A database file of no bytes counts as none.

    Without `files` the databases are elsewhere: then it is the key that makes this home one of theirs.
    """
    if not files:
        return key.is_file()
    if is_pending(places) or half_moved(places):
        return False
    return holds(places.registry_db) and holds(places.propagation_db)


def none_here(places: Places, *, files: bool = True) -> NotFound:
    """Why there is no registry to be opened here: nothing was ever made, or one of its files is gone."""
    if files and is_pending(places):
        return NotFound(f"a restore into {places.home} was cut short", hint="ureg up finishes it, or: ureg init")
    if files and half_moved(places):
        return NotFound(f"the move of {places.home} to PostgreSQL was cut short", hint="ureg db to-postgres ends it")
    if files and (ending := moved_aside(places)):
        return NotFound(
            f"the registry of {places.home} was moved to PostgreSQL",
            hint=f"set REGISTRY_DB_HOST as it was then; to begin anew, put the files that end in {ending} elsewhere",
        )
    if files and holds(places.registry_db):
        return NotFound(
            f"the propagation store {places.propagation_db} is missing; the registry beside it is there",
            hint="ureg up makes it anew; what was delivered before may be sent again",
        )
    if files and holds(places.propagation_db):
        return NotFound(
            f"{places.registry_db} is missing or empty, but {places.propagation_db.name} belongs to a registry",
            hint="restore it from a backup: ureg restore FILE; to begin anew, remove both",
        )
    return NotFound(f"there is no registry in {places.home} yet", hint="make one with: ureg init")


def prepare_home(places: Places, world: World, *, files: bool = True) -> None:
    """Make what is missing of the folders, the database files (where they are `files`) and the token.

    Raises ReadOnlyStore, StorageFull, KeyMismatch.
    """
    try:
        for file in (places.registry_db, places.log, places.metrics, places.address):
            file.parent.mkdir(parents=True, exist_ok=True)
        for database in (places.registry_db, places.propagation_db) if files else ():
            # Not for every user of the machine; SQLite gives the files that it puts beside them the same mode.
            os.close(os.open(database, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))
        private_folder(places.key.parent)
        _make_token(places.admin_token, world)
    except OSError as error:
        where = error.filename or places.home
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left for {where}", hint="free some space") from None
        why = (error.strerror or str(error)).lower()
        raise ReadOnlyStore(f"{where} cannot be made: {why}", hint="choose a writable --home") from None


def admin_token_hash(places: Places) -> str | None:
    """What a token is compared with; None when there is none, or when it is not ours to read."""
    try:
        text = places.admin_token.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return hash_token(text) if text else None


def _make_token(path: Path, world: World) -> None:
    """It appears whole or not at all, and whoever is first has made it. An empty one is none: nobody could use it."""
    drop_empty(path)
    if path.exists():
        return
    try:
        with new_file(path, world.new_id()) as file:
            file.write(f"{new_token(world)}\n".encode("ascii"))
    except FileExistsError:
        pass
