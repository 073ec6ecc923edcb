"""Making backups: one file, of one moment, while everything goes on; and reading them to their end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from universal_registry import __version__
from universal_registry.care.archive import ArchiveReader, ArchiveWriter, Header, opened
from universal_registry.care.engines import source_of
from universal_registry.care.kept import name_of
from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.security.keyring import Keyring
from universal_registry.storage.copying import Batch, Source, Summary, Tables, compare
from universal_registry.storage.durable import new_file, unwritable
from universal_registry.storage.threads import in_thread


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    header: Header
    tables: dict[str, Summary]
    bytes: int

    @property
    def rows(self) -> int:
        """In all tables."""
        return sum(table.rows for table in self.tables.values())


class Made(Written, frozen=True, kw_only=True):
    """A backup that is a file now."""

    path: Path


async def make_backup(settings: Settings, ring: Keyring, world: World, where: Path) -> Made:
    """Write a backup into a new file, or under a name of its own into a folder. Whole and durable, or not there.

    Works with a daemon and without, and stops nobody. Raises Conflict for a file that is there, KeyMismatch, and what
    the stores raise.
    """
    async with source_of(settings, world) as source:
        path = _new_path(where, name_of(world.now(), source.point))
        try:
            with new_file(path, world.new_id()) as file:
                found = await _write(file, source, ring, world)
                await in_thread(os.fsync, file.fileno())
        except FileExistsError:
            raise _there(path) from None
        except OSError as error:
            raise unwritable(error, path) from None
    return Made(path=path, header=found.header, tables=found.tables, bytes=found.bytes)


async def stream_backup(settings: Settings, ring: Keyring, world: World, file: BinaryIO) -> Written:
    """Write a backup to whoever reads there. One that is cut off is none: whoever reads it back is told. Raises
    OSError, KeyMismatch, and what the stores raise."""
    async with source_of(settings, world) as source:
        return await _write(file, source, ring, world)


def _new_path(where: Path, name: str) -> Path:
    path = where / name if where.is_dir() else where
    if path.exists():
        raise _there(path)
    return path


def _there(path: Path) -> Conflict:
    return Conflict(f"{path} is there already", hint="name a file that is not: nothing is overwritten")


async def _write(file: BinaryIO, source: Source, ring: Keyring, world: World) -> Written:
    """Row by row in a thread: a daemon answers meanwhile."""
    expected = source.point.key_fingerprint
    kid = ring.named(expected) if expected else None
    made = ArchiveWriter(file, source.point, ring.sealing_with(kid) if kid else ring, world, program=__version__)
    tables = Tables()

    def take(batch: Batch) -> None:
        tables.add(batch)
        made.add(batch)

    async for batch in source.batches():
        await in_thread(take, batch)
    found = tables.summaries()
    made.end(found)
    file.flush()
    return Written(header=made.header, tables=found, bytes=made.bytes)


def check_backup(path: Path, ring: Keyring) -> tuple[Header, dict[str, Summary]]:
    """Read all of it and compare with what it says that it holds. Raises Invalid, KeyMismatch, Corrupt."""
    with opened(path) as file:
        archive, tables = ArchiveReader(file, ring), Tables()
        for batch in archive.batches():
            tables.add(batch)
        assert archive.tables is not None
        compare(archive.tables, tables.summaries())
        return archive.header, archive.tables
