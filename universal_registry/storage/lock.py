"""One owner per folder: a lock file that names its holder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from universal_registry.kernel.errors import ReadOnlyStore, StoreLocked

_RETRY_SECONDS = 0.05


class Holder(msgspec.Struct, frozen=True):
    """Who holds a store: its process and what it is doing."""

    pid: int
    role: str


class StoreLock:
    """An flock on the home folder and on `run/ureg.lock` in it; it goes with the process, however that ends. The file's
    text names the holder; the folder cannot be removed and made anew under a living holder, as the file can."""

    def __init__(self, path: Path, descriptor: int, folder: int | None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._folder = folder

    @classmethod
    def acquire(cls, path: Path, *, role: str, wait: float = 0.0) -> StoreLock:
        """Take the lock, trying for `wait` seconds. Raises StoreLocked naming the holder, ReadOnlyStore."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ReadOnlyStore(f"{path} cannot be made: {error.strerror}", hint="choose a writable --home") from None
        deadline = time.monotonic() + wait
        folder: int | None = None
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder = _lock_folder(path.parent.parent)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise _locked(path) from None
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                time.sleep(_RETRY_SECONDS)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(Holder(os.getpid(), role)), 0)
        except OSError:
            # A full disk must not keep the owner out; only the name of the holder is lost.
            os.ftruncate(descriptor, 0)
        return cls(path, descriptor, folder)

    def release(self) -> None:
        """Let go. The file stays, empty: removing it would let two processes lock two files of one name."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        if self._folder is not None:
            os.close(self._folder)


def _lock_folder(folder: Path) -> int | None:
    """The locked folder; None on file systems that lock no folders. Raises BlockingIOError when another holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def read_holder(path: Path) -> Holder | None:
    """Who holds the lock now; None when it is free or its holder could not write its name."""
    try:
        text = path.read_bytes()
        return msgspec.json.decode(text, type=Holder) if text and is_held(path) else None
    except (OSError, msgspec.DecodeError):
        return None


def is_held(path: Path) -> bool:
    """Whether another process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _locked(path: Path) -> StoreLocked:
    holder = read_holder(path)
    if holder is None:
        return StoreLocked(f"the store in {path.parent.parent} is in use by another process", hint="ureg status")
    return StoreLocked(
        f"the store in {path.parent.parent} is in use by process {holder.pid} ({holder.role})",
        hint="stop it with: ureg down" if holder.role == "daemon" else "try again when it has ended",
        pid=holder.pid,
        role=holder.role,
    )
