"""Putting a registry where there is none, from a backup. All of it, verified, or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from universal_registry.care.archive import ArchiveReader, Header, check_key, opened, read_header
from universal_registry.care.backup import check_backup
from universal_registry.care.engines import folder_sinks, server_sinks
from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import World
from universal_registry.security.keyring import Keyring
from universal_registry.storage.copying import Sinks, Summary, compare, summed
from universal_registry.storage.home import is_initialised, prepare_home
from universal_registry.storage.keyfile import KeyFiles, key_files
from universal_registry.storage.lock import StoreLock
from universal_registry.storage.replacing import finish_replacing, folder_of, replace_stores

_INCARNATION_DIGITS = 12
_DRAFT = ".restore-"


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was put where. `aside`: what was there before, if anything was. `without`: the ids of keys that something
    in it may be sealed with, and that are not here."""

    header: Header
    incarnation: str
    tables: dict[str, Summary]
    aside: str
    without: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """In all tables."""
        return sum(table.rows for table in self.tables.values())


def keys_for(header: Header, files: KeyFiles, given: Keyring | None) -> Keyring:
    """The keys that open a backup: those given, or those of the home. Raises KeyMismatch, before anything is read."""
    ring = given if given is not None else files.load(expected=header.fingerprint)
    check_key(header, ring)
    return ring


async def restore(
    path: Path, settings: Settings, world: World, *, keys: Keyring | None = None, replace: bool = False
) -> Restored:
    """Put the registry of a backup into the home that the settings name, or into their database.

    `keys`: of a key backup, for a home that has none or others; they are put there. `replace`: what is there goes
    aside. Raises StoreLocked while anybody uses the home, KeyMismatch, Conflict, Corrupt: then nothing was changed.
    """
    header = read_header(path)
    places, files = Places(settings.home), key_files(settings, world)
    ring = keys_for(header, files, keys)
    check_backup(path, ring)
    here = settings.database is None
    if here:
        finish_replacing(places, wait=settings.lock_wait)
    if here and not replace and is_initialised(places, settings.key_file):
        raise Conflict(
            f"there is a registry in {places.home} already",
            hint="name another --home, or say --replace: then it goes aside, and is kept",
        )
    prepare_home(places, world, files=False)

    def put_the_keys() -> None:
        if keys is not None:
            put_keys(files, keys.sealing_with(keys.named(header.fingerprint) or keys.primary))

    lock = StoreLock.acquire(places.lock, role="restore", wait=settings.lock_wait)
    try:
        stamp = world.now().strftime("%Y%m%dT%H%M%SZ").lower()
        incarnation = world.new_id()[-_INCARNATION_DIGITS:]
        if settings.database is not None:
            sinks = server_sinks(settings.database, world, aside=f"_before_{stamp}" if replace else "")
            tables = await put(path, ring, sinks, incarnation, put_the_keys)
            aside = f"schemas that end in _before_{stamp}" if replace else ""
        else:
            with _draft(folder_of(places), world) as draft:
                tables = await put(path, ring, folder_sinks(draft), incarnation, put_the_keys)
                aside = replace_stores(draft, places, f".before-{stamp}")
    finally:
        lock.release()
    without = tuple(kid for kid in header.keys if kid not in ring.keys)
    return Restored(header=header, incarnation=incarnation, tables=tables, aside=aside, without=without)


async def put(
    path: Path, ring: Keyring, sinks: Sinks, incarnation: str, put_the_keys: Callable[[], None]
) -> dict[str, Summary]:
    """Write a backup's rows, read them back, and compare. Raises Corrupt: then nothing was kept.

    `put_the_keys` is called when all is verified, before it counts: cut short there, the home has keys that open
    nothing yet, and never a store whose keys are missing.
    """
    with opened(path) as file:
        archive = ArchiveReader(file, ring)
        async with sinks.begin(archive.header.point) as sink:
            for batch in archive.batches():
                await sink.take(batch)
            assert archive.tables is not None
            compare(archive.tables, await summed(sink.batches()))
            await sink.name(archive.header.point, incarnation)
            put_the_keys()
        return archive.tables


def put_keys(files: KeyFiles, ring: Keyring) -> None:
    """The keys stand in the files of a home. What is there is kept."""
    for kid in sorted(ring.keys.keys() - {ring.primary}):
        files.keep(ring.key(kid))
    if not files.read_only:
        files.make_primary(ring.key(ring.primary), restoring=True)


@contextmanager
def _draft(home: Path, world: World) -> Iterator[Path]:
    """A folder on the same file system, which is gone at the end."""
    for left in home.glob(f"{_DRAFT}*"):  # of a restore that was killed: its lock is ours now
        shutil.rmtree(left, ignore_errors=True)
    draft = home / f"{_DRAFT}{world.new_id()}"
    draft.mkdir(mode=0o700)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
