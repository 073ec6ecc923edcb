"""Two database files take the place of two others: both, whatever cuts it short, or neither.

The new ones wait in a folder beside the files, which an installed service keeps elsewhere (`folder_of`). Giving that
folder its name is the commit: before it nothing has happened, after it whoever opens the home first goes on to the
end. A file that still waits there has not been put in place.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import Places
from universal_registry.storage.durable import sync
from universal_registry.storage.lock import StoreLock

MOVED = ".moved-to-postgresql"
_COMMITTED = ".restored"
_ENDING = "ending"
_INDEX = "-shm"
_BESIDE = (_INDEX, "-wal", "")


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
        sync(made / _ENDING)
        sync(made)
        os.rename(made, folder_of(places) / _COMMITTED)
        sync(folder_of(places))
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
                sync(folder)
                os.rename(new, file)
        sync(folder)
        done = committed.with_name(f"{_COMMITTED}-done")
        shutil.rmtree(done, ignore_errors=True)  # of one that was killed in the next line but one
        os.rename(committed, done)
        shutil.rmtree(done)
        sync(folder)
    except OSError as error:
        raise _said(error) from None
    return aside


def _give_as(new: Path, old: Path) -> None:
    """Root restores for the service's account: the new file belongs to whom the old one did."""
    if os.geteuid() == 0 and old.exists():
        was = old.stat()
        os.chown(new, was.st_uid, was.st_gid)
        os.chmod(new, was.st_mode & 0o777)


def put_stores_aside(places: Places, ending: str) -> str:
    """Both files get `ending` at the end of their names, the registry's last. What went, in words. The lock must be
    held. Raises StorageUnavailable."""
    folder, aside = folder_of(places), ""
    try:
        for file in (places.propagation_db, places.registry_db):
            aside = put_aside(folder / file.name, ending) or aside
            sync(folder)
    except OSError as error:
        raise _said(error) from None
    return aside


def half_moved(places: Places) -> str:
    """The ending of the file that has gone aside, where a move to PostgreSQL was cut short after its commit; or
    nothing."""
    folder, gone = folder_of(places), places.propagation_db.name
    if _holds(folder / gone) or not _holds(places.registry_db):
        return ""
    aside = sorted(each.name for each in folder.glob(f"{gone}{MOVED}*") if not each.name.endswith(("-shm", "-wal")))
    return aside[-1].removeprefix(gone) if aside else ""


def _holds(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def put_aside(file: Path, ending: str) -> str:
    """With what SQLite keeps beside it, which belongs to it: a WAL holds what was acknowledged. What went, in words."""
    found = ""
    for beside in _BESIDE:
        old, new = Path(f"{file}{beside}"), Path(f"{file}{ending}{beside}")
        if old.exists() and (beside == _INDEX or old.stat().st_size == 0):
            old.unlink()  # nothing is in it that SQLite does not make anew, and a file of its new name may be there
        elif old.exists():
            if new.exists():
                raise FileExistsError(errno.EEXIST, "something of that name is there already", str(new))
            os.rename(old, new)
            found = f"files that end in {ending}"
    return found


def _said(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"{error.filename}: {(error.strerror or str(error)).lower()}", hint="try again")
