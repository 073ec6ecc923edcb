"""The key file: made once without a race, and refused whenever someone else could have read or swapped it.

`config/encryption.key` holds the key that seals, `config/keys/*.key` the others. A key is never made over sealed data:
the caller says with `may_create` whether the store is new. A file appears whole or not at all, and a key that is
replaced stands in `keys/` before it leaves its place.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path
from typing import NoReturn

from universal_registry.kernel.errors import (
    Conflict,
    Invalid,
    KeyMismatch,
    ReadOnlyStore,
    StorageFull,
    StorageUnavailable,
)
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.security.keyring import Keyring, kid_of, new_key, parse_key
from universal_registry.storage.durable import UNFINISHED, drop_empty, new_file, replaced_file, sync

_MOST_BYTES = 4096


def load_or_create_key(path: Path, world: World, *, may_create: bool, expected: str | None = None) -> Keyring:
    """The keyring of a key file and of `keys/*.key` beside it.

    A missing file, or an empty one, is made when `may_create`; any number of processes that do this at once end with
    the same key.
    `expected` is the fingerprint that the store knows, for the message when the file is missing.
    Raises KeyMismatch (missing, foreign, unsafe, not a key), ReadOnlyStore, StorageFull, StorageUnavailable.
    """
    try:
        if may_create:
            drop_empty(path)
        if not _exists(path):
            if not may_create:
                raise _missing(path, expected)
            private_folder(path.parent)
            _create(path, new_key(world) + b"\n", world.new_id())
        _check_folder(path.parent)
        primary = _read(path)
        older = [_read(file) for file in _older(path.parent / "keys")]
    except OSError as error:
        _fail(error, path)
    return Keyring.of(primary, older)


class KeyFiles:
    """The key files of one home. `mounted`: the key is read from there, a file that is not ours to write (a secret of
    the platform); older keys still stand in `keys/` beside `path`."""

    def __init__(self, path: Path, world: World, *, mounted: Path | None = None) -> None:
        self.path = path
        self.mounted = mounted
        self._world = world

    @property
    def read_only(self) -> bool:
        """Whether the key that seals cannot be replaced from here."""
        return self.mounted is not None

    def load(self, *, may_create: bool = False, expected: str | None = None) -> Keyring:
        """As `load_or_create_key`; a mounted key is never made."""
        if self.mounted is None:
            return load_or_create_key(self.path, self._world, may_create=may_create, expected=expected)
        try:
            primary = _read_mounted(self.mounted, expected)
            return Keyring.of(primary, map(_read, _older(self.path.parent / "keys")))
        except OSError as error:
            _fail(error, self.mounted)

    def keep(self, key: bytes) -> None:
        """Put a key into `keys/`, durably, unless it is there. Raises KeyMismatch, ReadOnlyStore, StorageFull."""
        folder = self.path.parent / "keys"
        try:
            private_folder(self.path.parent)
            private_folder(folder)
            self._sweep()
            if key not in map(_read, _older(folder)):
                _create(folder / f"{kid_of(key)}.key", key + b"\n", self._world.new_id())
            sync(self.path.parent)
        except OSError as error:
            _fail(error, folder)

    def make_primary(self, key: bytes, *, restoring: bool = False) -> None:
        """Put a key into the key file; the one that was there is kept in `keys/` first. Raises as `keep`, and
        KeyMismatch when no key was there: only when `restoring` is that put aside, since the key that it was may be
        in a daemon's memory and nowhere else."""
        if self.mounted is not None:
            raise ReadOnlyStore(f"{self.mounted} is not ours to write", hint="replace it where it comes from")
        try:
            private_folder(self.path.parent)
            if _exists(self.path):
                text = _read_text(self.path)
                if restoring and not _holds_key(text):
                    self._put_aside(text)
                elif (before := _parsed(self.path, text)) == key:
                    return
                else:
                    self.keep(before)
            with replaced_file(self.path, self._world.new_id()) as file:
                file.write(key + b"\n")
        except OSError as error:
            _fail(error, self.path)

    def _put_aside(self, text: bytes) -> None:
        """Into `keys/`, under a name that is never read as a key's."""
        folder = self.path.parent / "keys"
        private_folder(folder)
        _create(folder / f"{self._world.new_id()}.bad", text, self._world.new_id())

    def drop(self, kid: str) -> None:
        """Remove the files in `keys/` that hold this key. Raises as `keep`."""
        folder = self.path.parent / "keys"
        try:
            for file in _older(folder):
                if kid_of(_read(file)) == kid:
                    file.unlink()
            if _exists(folder):
                sync(folder)
        except OSError as error:
            _fail(error, folder)

    def _sweep(self) -> None:
        """Remove what a kill left of a key file. The caller owns the store: nobody else is at it."""
        for left in self.path.parent.glob(f".{self.path.name}.*{UNFINISHED}"):
            left.unlink(missing_ok=True)


def key_files(settings: Settings, world: World) -> KeyFiles:
    """The key files that the settings name."""
    mounted = settings.key_file if settings.encryption.key_file else None
    return KeyFiles(settings.home / settings.encryption.key_path, world, mounted=mounted)


def write_private(path: Path, data: bytes, world: World) -> None:
    """A new file of mode 0600, whole and durable. Raises Conflict when there is one of that name, ReadOnlyStore ..."""
    try:
        if not _create(path, data, world.new_id()):
            raise Conflict(f"{path} is there already", hint="name a file that is not: nothing is overwritten")
    except OSError as error:
        _fail(error, path)


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter (0700), or check that it is one. Raises KeyMismatch, OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        _check_folder(folder)


def _missing(path: Path, expected: str | None) -> KeyMismatch:
    with_key = f"key {expected}" if expected else "a key that is no longer there"
    return KeyMismatch(
        f"the store was sealed with {with_key}, and {path} is missing",
        hint="restore config/encryption.key from your backup; a new key is never made over sealed data",
        expected=expected,
    )


def _create(path: Path, data: bytes, unique: str) -> bool:
    """The whole file appears at once or not at all, and only one maker wins: whether it was this one."""
    try:
        with new_file(path, unique) as file:
            file.write(data)
    except FileExistsError:
        return False  # another process was first: its key is the key
    return True


def _exists(path: Path) -> bool:
    """Whether anything is there. Unlike `os.path.lexists`, a folder that cannot be read is an error, not a no."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _older(folder: Path) -> list[Path]:
    if not _exists(folder):
        return []
    _check_folder(folder)
    return sorted(file for file in folder.iterdir() if file.suffix == ".key")


def _read(path: Path) -> bytes:
    """The key in a file, which must hold one."""
    return _parsed(path, _read_text(path))


def _read_text(path: Path) -> bytes:
    """What is in a file that is regular, ours and closed to others. What was checked is what is read."""
    try:
        # O_NONBLOCK: a FIFO in its place must not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise KeyMismatch(f"{path} is a symbolic link", hint="put the key file itself there") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyMismatch(f"{path} is not a regular file", hint="put the key file there")
        _check_private(path, status, "600")
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def _holds_key(text: bytes) -> bool:
    try:
        parse_key(text)
    except Invalid:
        return False
    return True


def _parsed(path: Path, text: bytes) -> bytes:
    try:
        return parse_key(text)
    except Invalid as error:
        raise KeyMismatch(
            f"{path} does not hold a key: {error.message}",
            hint="put your backup back: ureg key restore FILE; it was left as it is",
        ) from None


def _read_mounted(path: Path, expected: str | None) -> bytes:
    """The key in a file that the platform put there: its links, owner and mode are the platform's affair."""
    if not path.exists():
        with_key = f"; the store was sealed with key {expected}" if expected else ""
        raise KeyMismatch(f"{path}, which is to hold the key, is missing{with_key}", hint="put the key there")
    if not path.is_file():
        raise KeyMismatch(f"{path} is not a regular file", hint="put the key file there")
    with path.open("rb") as file:
        return _parsed(path, file.read(_MOST_BYTES))


def _check_folder(folder: Path) -> None:
    status = os.lstat(folder)
    if stat.S_ISLNK(status.st_mode):
        raise KeyMismatch(f"{folder} is a symbolic link", hint="keys stay in a real folder")
    if not stat.S_ISDIR(status.st_mode):
        raise KeyMismatch(f"{folder} is not a folder", hint="keys are kept in this folder; move the file away")
    _check_private(folder, status, "700")


def _check_private(path: Path, status: os.stat_result, mode: str) -> None:
    """Owned by this user, and without a permission bit for anyone else."""
    quoted = shlex.quote(str(path))
    if status.st_uid != os.geteuid():
        command = f"chown {os.geteuid()} {quoted}"
        raise KeyMismatch(
            f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}, who runs this",
            hint=f"run as its owner, or: {command}",
            command=command,
        )
    if status.st_mode & 0o077:
        command = f"chmod {mode} {quoted}"
        raise KeyMismatch(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"run: {command}",
            command=command,
        )


def _fail(error: OSError, path: Path) -> NoReturn:
    what = f"the key file {path} cannot be used: {os.strerror(error.errno or 0).lower()}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        raise ReadOnlyStore(what, hint="this user must be able to read and write the folder") from error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageFull(what, hint="free some space") from error
    raise StorageUnavailable(what, hint="check the path given by --home or REGISTRY_HOME") from error
