"""The key file: made once without a race, and refused whenever someone else could have read or swapped it.

`config/encryption.key` holds the primary key, `config/keys/*.key` the older ones. A key is never made over sealed data:
the caller says with `may_create` whether the store is new.
"""

from __future__ import annotations

import errno
import hmac
import os
import shlex
import stat
from pathlib import Path
from typing import NoReturn

from universal_registry.kernel.errors import Invalid, KeyMismatch, ReadOnlyStore, StorageFull, StorageUnavailable
from universal_registry.kernel.world import World
from universal_registry.security.keyring import Keyring, new_key, parse_key

_MOST_BYTES = 4096


def load_or_create_key(path: Path, world: World, *, may_create: bool, expected: str | None = None) -> Keyring:
    """The keyring of a key file and of `keys/*.key` beside it.

    A missing file is made when `may_create`; any number of processes that do this at once end with the same key.
    `expected` is the fingerprint that the store knows, for the message when the file is missing.
    Raises KeyMismatch (missing, foreign, unsafe, not a key), ReadOnlyStore, StorageFull, StorageUnavailable.
    """
    try:
        if not _exists(path):
            if not may_create:
                raise _missing(path, expected)
            private_folder(path.parent)
            _create(path, new_key(world), world.new_id())
        _check_folder(path.parent)
        primary = _read(path)
        older = [_read(file) for file in _older(path.parent / "keys")]
    except OSError as error:
        _fail(error, path)
    return Keyring.of(primary, older)


def check_fingerprint(expected: str, actual: str) -> None:
    """Refuse a key that the store was not sealed with. Both are `Keyring.fingerprint` texts."""
    if not hmac.compare_digest(expected.encode(), actual.encode()):
        raise KeyMismatch(
            f"the store was sealed with key {expected}, but the key file holds key {actual}",
            hint="restore config/encryption.key from your backup",
            expected=expected,
            actual=actual,
        )


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


def _create(path: Path, key: bytes, unique: str) -> None:
    """The whole file appears at once or not at all, and only one maker wins; the losers read the winner's."""
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            return  # another process was first: its key is the key
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _exists(path: Path) -> bool:
    """Whether anything is there. Unlike `os.path.lexists`, a folder that cannot be read is an error, not a no."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _older(folder: Path) -> list[Path]:
    if not _exists(folder):
        return []
    _check_folder(folder)
    return sorted(file for file in folder.iterdir() if file.suffix == ".key")


def _read(path: Path) -> bytes:
    """The key in a file that is regular, ours and closed to others. What was checked is what is read."""
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
        text = os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)
    try:
        return parse_key(text)
    except Invalid as error:
        raise KeyMismatch(
            f"{path} does not hold a key: {error.message}", hint="restore it from your backup; it was left as it is"
        ) from None


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
        raise KeyMismatch(
            f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}, who runs this",
            hint=f"run as its owner, or: chown {os.geteuid()} {quoted}",
        )
    if status.st_mode & 0o077:
        raise KeyMismatch(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})", hint=f"run: chmod {mode} {quoted}"
        )


def _fail(error: OSError, path: Path) -> NoReturn:
    what = f"the key file {path} cannot be used: {os.strerror(error.errno or 0).lower()}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        raise ReadOnlyStore(what, hint="this user must be able to read and write the folder") from error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageFull(what, hint="free some space") from error
    raise StorageUnavailable(what, hint="check the path given by --home or REGISTRY_HOME") from error
