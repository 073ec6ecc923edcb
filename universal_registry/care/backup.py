"""Making backups: one file, of one moment, while everything goes on; and the ones that are made by the clock."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from universal_registry import __version__
from universal_registry.care.archive import ArchiveReader, ArchiveWriter, Header, opened
from universal_registry.care.engines import source_of
from universal_registry.kernel.errors import Conflict, ReadOnlyStore, StorageFull, StorageUnavailable
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.security.keyring import Keyring
from universal_registry.storage.copying import Source, Summary, Tables, compare

SUFFIX = ".backup"
_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"ureg-(\d{8}T\d{6}Z)-r(\d+)\.backup")
_UNFINISHED = ".part"
_LOOK_SECONDS = 60.0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was written."""

    path: Path
    header: Header
    tables: dict[str, Summary]
    bytes: int

    @property
    def rows(self) -> int:
        """In all tables."""
        return sum(table.rows for table in self.tables.values())


async def make_backup(settings: Settings, ring: Keyring, world: World, where: Path) -> Made:
    """Write a backup into a new file, or under a name of its own into a folder. Whole and durable, or not there.

    Works with a daemon and without, and stops nobody. Raises Conflict for a file that is there, KeyMismatch, and what
    the stores raise.
    """
    async with source_of(settings, world) as source:
        path = _new_file(where, name_of(world.now(), source.point.revision))
        draft = path.with_name(f".{path.name}.{world.new_id()}{_UNFINISHED}")
        try:
            header, tables = await _write(draft, source, ring, world)
            os.link(draft, path)  # unlike a rename, it replaces nothing
            _sync_folder(path.parent)
        except OSError as error:
            raise _said(error, path) from None
        finally:
            draft.unlink(missing_ok=True)
    return Made(path=path, header=header, tables=tables, bytes=path.stat().st_size)


def _new_file(where: Path, name: str) -> Path:
    path = where / name if where.is_dir() else where
    if path.exists():
        raise Conflict(f"{path} is there already", hint="name a file that is not: nothing is overwritten")
    return path


async def _write(draft: Path, source: Source, ring: Keyring, world: World) -> tuple[Header, dict[str, Summary]]:
    expected = source.point.key_fingerprint
    kid = ring.named(expected) if expected else None
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        made = ArchiveWriter(file, source.point, ring.sealing_with(kid) if kid else ring, world, program=__version__)
        tables = Tables()
        async for batch in source.batches():
            tables.add(batch)
            made.add(batch)
        found = tables.summaries()
        made.end(found)
        file.flush()
        os.fsync(file.fileno())
    return made.header, found


def check_backup(path: Path, ring: Keyring) -> tuple[Header, dict[str, Summary]]:
    """Read all of it and compare with what it says that it holds. Raises Invalid, KeyMismatch, Corrupt."""
    with opened(path) as file:
        return _checked(file, ring)


def _checked(file: BinaryIO, ring: Keyring) -> tuple[Header, dict[str, Summary]]:
    archive, tables = ArchiveReader(file, ring), Tables()
    for batch in archive.batches():
        tables.add(batch)
    assert archive.tables is not None
    compare(archive.tables, tables.summaries())
    return archive.header, archive.tables


# --- by the clock ---------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """A backup in the folder of scheduled ones, as its name says."""

    at: datetime
    revision: int
    path: Path


def name_of(at: datetime, revision: int) -> str:
    """The name of a backup in a folder: they sort by time."""
    return f"ureg-{at.strftime(_STAMP)}-r{revision}{SUFFIX}"


def kept_in(folder: Path) -> list[Kept]:
    """The backups in a folder, the newest last. A folder that is not there has none. Raises StorageUnavailable."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _said(error, folder) from None
    found = ((match, folder / name) for name in names if (match := _NAME.fullmatch(name)))
    return sorted(Kept(at, int(match[2]), path) for match, path in found if (at := _moment(match[1])))


def newest(folder: Path, now: datetime) -> Kept | None:
    """The newest backup that is not of a time to come: such a name, of a clock that was wrong, must not keep others
    from being made. Raises StorageUnavailable."""
    return next((each for each in reversed(kept_in(folder)) if each.at <= now), None)


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None  # no time at all: a file of somebody else's


class Schedule:
    """The backups that a daemon makes. `settings` may be replaced. `keyring`: the keys that seal by then."""

    def __init__(self, settings: Settings, world: World, keyring: Callable[[], Keyring]) -> None:
        self.settings = settings
        self._world = world
        self._keyring = keyring
        self._news: Callable[..., None] = lambda _event, **_fields: None

    def on_news(self, news: Callable[..., None]) -> None:
        """Call this with an event's name and fields when a backup was made."""
        self._news = news

    def due_in(self) -> float | None:
        """Seconds until the next one; None: never. Raises StorageUnavailable."""
        if self.settings.backup_folder is None:
            return None
        kept = newest(self.settings.backup_folder, self._world.now())
        if kept is None:
            return 0.0
        interval = timedelta(hours=self.settings.backup_interval_hours)
        return max(0.0, (interval - (self._world.now() - kept.at)).total_seconds())

    def age(self) -> float | None:
        """Seconds since the newest one was made; None: there is none, or its folder cannot be read."""
        try:
            folder, now = self.settings.backup_folder, self._world.now()
            kept = newest(folder, now) if folder is not None else None
        except StorageUnavailable:
            return None  # the worker that makes them says so
        return (now - kept.at).total_seconds() if kept else None

    async def tick(self) -> float:
        """Make the one that is due, if one is. Seconds until the next look. Raises what the stores raise."""
        due = self.due_in()
        if due == 0.0:
            made = await self._make()
            self._news("backup made", file=str(made.path), revision=made.header.point.revision, bytes=made.bytes)
        return _LOOK_SECONDS if not due else min(due, _LOOK_SECONDS)

    async def _make(self) -> Made:
        """Then those that are more than are to be kept are removed: never before it is there."""
        folder = self.settings.backup_folder
        assert folder is not None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _said(error, folder) from None
        made = await make_backup(self.settings, self._keyring(), self._world, folder)
        try:
            for left in folder.glob(f".ureg-*{_UNFINISHED}"):
                left.unlink(missing_ok=True)
            for old in kept_in(folder)[: -self.settings.backup_keep]:
                old.path.unlink(missing_ok=True)
        except OSError as error:
            raise _said(error, folder) from None
        return made


def _said(error: OSError, path: Path) -> StorageUnavailable:
    what = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(what, hint="free some space")
    return ReadOnlyStore(what, hint="check the folder's owner and mode")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
