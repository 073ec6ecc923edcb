"""Files that are there whole or not at all, whatever cuts the writing short, power cuts included."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from universal_registry.kernel.errors import ReadOnlyStore, StorageFull, StorageUnavailable

UNFINISHED = ".part"
"""How the draft of a file ends, which is `.NAME.UNIQUE.part` beside it: a kill may leave one."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


@contextlib.contextmanager
def new_file(path: Path, unique: str, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to write into, which is at `path` after the block, durably, and replaces nothing: of several makers one
    wins. Raises FileExistsError when something is there by then, OSError; what the block raises leaves nothing."""
    with _draft(path, unique, mode) as (draft, file):
        yield file
        _finish(file)
        _appear(draft, path)


@contextlib.contextmanager
def replaced_file(path: Path, unique: str, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """As `new_file`, in the place of what is there: `path` is the old file or the new one, whole, at every moment."""
    with _draft(path, unique, mode) as (draft, file):
        yield file
        _finish(file)
        draft.replace(path)
        sync(path.parent)


def sync(path: Path) -> None:
    """What was written into a file, or the names in a folder, outlive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_empty(path: Path) -> None:
    """Remove a file of no bytes, if that is what is there: something else was cut short there, and it holds nothing.
    Of several that do so and then make it anew, none removes what another has made. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), _alone_in(path.parent):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and found.st_size == 0:
            path.unlink()


def unwritable(error: OSError, path: Path) -> StorageUnavailable:
    """What is said when a file or folder that people have named cannot be written."""
    what = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(what, hint="free some space")
    return ReadOnlyStore(what, hint="check the folder's owner and mode")


@contextlib.contextmanager
def _draft(path: Path, unique: str, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    draft = path.with_name(f".{path.name}.{unique}{UNFINISHED}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield draft, file
    finally:
        draft.unlink(missing_ok=True)


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _appear(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)  # unlike a rename, it replaces nothing
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _claim(draft, path)  # FAT, exFAT and some network file systems have no second name for a file
    sync(path.parent)


def _claim(draft: Path, path: Path) -> None:
    """Look, then rename, while nobody else does. Killed at any moment, only the draft is left."""
    with _alone_in(path.parent):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        draft.replace(path)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Of all processes of this machine that come here, one at a time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
