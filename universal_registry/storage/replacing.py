"""Two database files take the place of two others: both, whatever cuts it short, or neither.

The new ones wait in a folder beside the files, which an installed service keeps elsewhere (`folder_of`). Giving that
folder its name is the commit: before it nothing has happened, after it whoever opens the home first goes on to the
end. A file that still waits there has not been put in place.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import Places
from universal_registry.storage.lock import StoreLock

_COMMITTED = ".restored"
_ENDING = "ending"
_BESIDE = ("-shm", "-wal", "")


def folder_of(places: Places) -> Path:
    """Where the database files of a home really are: an installed service has links to them in its home."""
    return Path(os.path.realpath(places.registry_db)).parent


def is_pending(places: Places) -> bool:
    """Whether a replacement was cut short here."""
    return (folder_of(places) / _COMMITTED).is_dir()


def replace_stores(made: Path, places: Places, ending: str) -> str:
    """Put both files of the folder `made`, which is in `folder_of(places)`, in place; what was there gets `ending` at
    the end of its name. What went aside, in words. The lock must be held. Raises StorageUnavailable."""
    try:
        (made / _ENDING).write_text(ending, "ascii")
        _sync(made / _ENDING)
        _sync(made)
        os.rename(made, folder_of(places) / _COMMITTED)
        _sync(folder_of(places))
    except OSError as error:
        raise _said(error) from None
    return _go_on(places)


def finish_replacing(places: Places, *, wait: float) -> None:
    """Go on where a replacement was cut short, if one was. Raises StoreLocked, StorageUnavailable."""
    if is_pending(places):
        lock = StoreLock.acquire(places.lock, role="restore", wait=wait)
        try:
            go_on(places)
        finally:
            lock.release()


def go_on(places: Places) -> None:
    """As `finish_replacing`, under a lock that is held."""
    if is_pending(places):
        _go_on(places)


def _go_on(places: Places) -> str:
    folder = folder_of(places)
    committed, aside = folder / _COMMITTED, ""
    try:
        ending = (committed / _ENDING).read_text("ascii")
        for name in (places.propagation_db.name, places.registry_db.name):
            new, file = committed / name, folder / name
            if new.exists():
                _give_as(new, file)
                aside = put_aside(file, ending) or aside
                _sync(folder)
                os.rename(new, file)
        _sync(folder)
        done = committed.with_name(f"{_COMMITTED}-done")
        shutil.rmtree(done, ignore_errors=True)  # of one that was killed in the next line but one
        os.rename(committed, done)
        shutil.rmtree(done)
        _sync(folder)
    except OSError as error:
        raise _said(error) from None
    return aside


def _give_as(new: Path, old: Path) -> None:
    """Root restores for the service's account: the new file belongs to whom the old one did."""
    if os.geteuid() == 0 and old.exists():
        was = old.stat()
        os.chown(new, was.st_uid, was.st_gid)
        os.chmod(new, was.st_mode & 0o777)


def put_aside(file: Path, ending: str) -> str:
    """With what SQLite keeps beside it, which belongs to it: a WAL holds what was acknowledged. What went, in words."""
    found = ""
    for beside in _BESIDE:
        old = Path(f"{file}{beside}")
        if old.exists() and old.stat().st_size == 0:
            old.unlink()  # nothing is in it, and what it would be named like may be there
        elif old.exists():
            os.rename(old, f"{file}{ending}{beside}")
            found = f"files that end in {ending}"
    return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _said(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"{error.filename}: {(error.strerror or str(error)).lower()}", hint="try again")
