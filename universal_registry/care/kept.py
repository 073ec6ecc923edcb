"""The backups in a folder: their names, which of them are whose, and what is kept of them."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from universal_registry.storage.copying import Point
from universal_registry.storage.durable import UNFINISHED, unwritable

SUFFIX = ".backup"
_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"ureg-(\d{8}T\d{6}Z)-r(\d+)-([0-9a-f]{12})\.backup")
_DRAFT = re.compile(rf"\.{_NAME.pattern}\.[0-9a-f]+{re.escape(UNFINISHED)}")
_ABANDONED = 3600.0


class Kept(NamedTuple):
    """A backup, as its name says. `history`: the incarnation of the registry that it is of."""

    at: datetime
    revision: int
    history: str
    path: Path


def name_of(at: datetime, point: Point) -> str:
    """The name of a backup in a folder: they sort by time, and say whose they are."""
    return f"ureg-{at.strftime(_STAMP)}-r{point.revision}-{point.incarnation}{SUFFIX}"


def kept_in(folder: Path, history: str | None = None) -> list[Kept]:
    """The backups in a folder, the newest last: those of one history, or all. A folder that is not there has none.
    Raises StorageUnavailable."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unwritable(error, folder) from None
    found = ((match, folder / name) for name in names if (match := _NAME.fullmatch(name)))
    kept = [Kept(at, int(match[2]), match[3], path) for match, path in found if (at := _moment(match[1]))]
    return sorted(each for each in kept if history in (None, each.history))


def newest(folder: Path, now: datetime, history: str | None = None) -> Kept | None:
    """The newest of them that is not of a time to come: such a name, of a clock that was wrong, must not keep others
    from being made. Raises StorageUnavailable."""
    return next((each for each in reversed(kept_in(folder, history)) if each.at <= now), None)


def keep_newest(folder: Path, history: str, count: int, now: datetime) -> None:
    """Remove what is more than so many of one history, and its drafts that nobody writes any more. What is another
    registry's, or was put there by somebody else, stays; so does what is of a time to come, and it does not count: the
    one just made would be the oldest beside it. Raises StorageUnavailable."""
    try:
        for draft in os.scandir(folder):
            mine = (match := _DRAFT.fullmatch(draft.name)) is not None and match[3] == history
            if mine and now.timestamp() - draft.stat().st_mtime > _ABANDONED:
                os.unlink(draft.path)
        for old in [each for each in kept_in(folder, history) if each.at <= now][:-count]:
            old.path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(error, folder) from None


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None  # no time at all: a file of somebody else's
