"""Two database files take the place of two others, or go aside: both, whatever cuts it short, or neither.

The new ones wait in a folder beside the files, which an installed service keeps elsewhere (`folder_of`). Giving that
folder its name is the commit: before it nothing has happened, after it whoever opens the home first goes on to the
end. A file that still waits there has not been put in place. While files go aside, a mark says so: what is still in
place is no registry, and may lack its WAL.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import Places
from universal_registry.storage.durable import replaced_file, sync
from universal_registry.storage.lock import StoreLock

MOVED = ".moved-to-postgresql"
_MOVING = ".moving-to-postgresql"
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
        (folder / _MOVING).unlink(missing_ok=True)  # what was half gone is aside now, too
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


class HalfMoved(NamedTuple):
    """A move to PostgreSQL that was committed, and whose files are not aside yet. `ending`: of their new names.
    `incarnation`: of the history that was moved."""

    ending: str
    incarnation: str


def put_stores_aside(places: Places, moved: HalfMoved) -> str:
    """Both files get `ending` at the end of their names, the registry's last. What went, in words. The lock must be
    held. Cut short, it is `half_moved`. Raises StorageUnavailable."""
    folder, aside = folder_of(places), ""
    files = [folder / each.name for each in (places.propagation_db, places.registry_db)]
    try:
        for file in files:
            if holds(file):
                _refuse_to_overwrite(file, Path(f"{file}{moved.ending}"))
        with replaced_file(folder / _MOVING, moved.ending) as mark:
            mark.write("\n".join(moved).encode("ascii"))
        for file in files:
            aside = put_aside(file, moved.ending) or aside
            sync(folder)
        (folder / _MOVING).unlink()
        sync(folder)
    except OSError as error:
        raise _said(error) from None
    return aside or f"files that end in {moved.ending}"


def half_moved(places: Places) -> HalfMoved | None:
    """The move to PostgreSQL that was cut short here after its commit, if one was."""
    try:
        ending, _, incarnation = (folder_of(places) / _MOVING).read_text("ascii", "replace").partition("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return HalfMoved(ending, incarnation)


def moved_aside(places: Places) -> str:
    """How the files end that a move to PostgreSQL has left, where nothing has taken their place since; or nothing."""
    name = places.registry_db.name
    if holds(places.registry_db) or holds(places.propagation_db):
        return ""
    aside = sorted(each.name.removeprefix(name) for each in folder_of(places).glob(f"{name}{MOVED}*"))
    return next((each for each in reversed(aside) if not each.endswith(_BESIDE[:2])), "")


def holds(file: Path) -> bool:
    """Whether a database is in the file: one of no bytes counts as none."""
    return file.is_file() and file.stat().st_size > 0


def put_aside(file: Path, ending: str) -> str:
    """With what SQLite keeps beside it, which belongs to it: a WAL holds what was acknowledged. What went, in words."""
    found = ""
    for beside in _BESIDE:
        old, new = Path(f"{file}{beside}"), Path(f"{file}{ending}{beside}")
        if old.exists() and (beside == _INDEX or old.stat().st_size == 0):
            old.unlink()  # nothing is in it that SQLite does not make anew, and a file of its new name may be there
        elif old.exists():
            _refuse_to_overwrite(old, new)
            os.rename(old, new)
            found = f"files that end in {ending}"
    return found


def _refuse_to_overwrite(old: Path, new: Path) -> None:
    if old.exists() and new.exists():
        raise FileExistsError(errno.EEXIST, "something of that name is there already", str(new))


def _said(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"{error.filename}: {(error.strerror or str(error)).lower()}", hint="try again")
