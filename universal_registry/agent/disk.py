"""What stands at a path, and putting something else there: as a whole, durably, and never through a link."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from universal_registry.agent.blocks import joined, split
from universal_registry.agent.members import merged, ours
from universal_registry.agent.plan import Entry, Form
from universal_registry.agent.state import Before, Pending, draft_of
from universal_registry.agent.wanted import USUAL_MODE, mark_of
from universal_registry.kernel.errors import Refused
from universal_registry.storage.durable import replaced_file, sync

_MOST = 16 << 20
NOTHING = Before(what="nothing")
Good = Callable[[Path], None]


class Target(NamedTuple):
    """A place of an entry. `names`: members of a file that are ours, or are to be."""

    path: Path
    entry: Entry
    names: frozenset[str] = frozenset()


class Look(NamedTuple):
    """What is there. `mark`: as `Wanted.mark`, of what could be ours of it; empty: nothing."""

    before: Before
    mark: str


def look(target: Target) -> Look:
    """What stands at a place. Raises Refused for what is neither a file nor a link, or cannot be read."""
    path, form = target.path, target.entry.form
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            if form.is_shared:
                raise Refused(f"{path} is a symbolic link")
            data = os.readlink(os.fsencode(path))
            return Look(Before(what="link", data=data), mark_of(Form.LINK, data, None))
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"{path} is no plain file")
        before = _read(path)
    except FileNotFoundError:
        return Look(NOTHING, "")
    except OSError as error:
        raise Refused(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not form.is_shared:
        return Look(before, mark_of(Form.FILE, before.data, before.mode))
    body = _part(target, before.data)
    return Look(before, "" if body is None else mark_of(form, body, None))


def whole_of(target: Target, before: Before, content: bytes | None) -> bytes | None:
    """All that is to be at the place, with that content of ours; None: nothing. Raises Refused."""
    entry = target.entry
    if entry.form is Form.MEMBERS:
        return merged(before.data, entry.member, target.names, content)
    if entry.form is Form.BLOCK:
        return joined(split(before.data, entry.comment, entry.name), content, entry.comment, entry.name)
    return content


def digest_of(whole: bytes | None) -> str:
    """What tells one whole from another."""
    return "" if whole is None else sha256(whole).hexdigest()


def write(target: Target, before: Before, whole: bytes | None, mode: int | None, unique: str, good: Good) -> None:
    """Put it there in one step. `good` is given the draft and may raise: then nothing is changed. Raises OSError, and
    Refused when the file would get another owner."""
    path = target.path
    if whole is None:
        good(path)
        path.unlink()
        sync(path.parent)
    elif target.entry.form is Form.LINK:
        _put_link(path, whole, unique, good)
    else:
        kept = mode if mode is not None else before.mode if before.what == "file" else USUAL_MODE
        _put_file(path, before, whole, kept, unique, good)


def put_back(target: Target, pending: Pending) -> None:
    """Make it what it was before. Lines of others that were changed since stay. Raises OSError, Refused."""
    now, before = look(target), pending.before
    if now.before == before:
        return
    if now.mark != pending.mark:
        raise Refused("it was changed on this machine meanwhile")
    data: bytes | None = before.data
    if target.entry.form.is_shared and digest_of(now.before.data) != pending.whole:
        data, before = whole_of(target, now.before, _part(target, before.data)), now.before
    if before.what == "nothing":
        target.path.unlink()
        sync(target.path.parent)
    elif before.what == "link":
        _put_link(target.path, before.data, pending.unique, _anything)
    else:
        _put_file(target.path, before, data or b"", before.mode, pending.unique, _anything)


def _part(target: Target, data: bytes) -> bytes | None:
    """What of a shared file is ours."""
    entry = target.entry
    if entry.form is Form.MEMBERS:
        return ours(data, entry.member, target.names)
    return split(data, entry.comment, entry.name).body


def _read(path: Path) -> Before:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"{path} is no plain file")
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise Refused(f"{path} is larger than {_MOST >> 20} MiB")
    mode = stat.S_IMODE(found.st_mode)
    return Before(what="file", data=data, mode=mode, owner=(found.st_uid, found.st_gid))


def _put_file(path: Path, before: Before, data: bytes, mode: int, unique: str, good: Good) -> None:
    with replaced_file(path, unique, mode=0o600) as file:
        file.write(data)
        file.flush()
        mine = os.fstat(file.fileno())
        if before.what == "file" and before.owner != (mine.st_uid, mine.st_gid):
            try:
                os.fchown(file.fileno(), *before.owner)
            except OSError:
                raise Refused(f"{path} is another user's or group's, and would not stay it") from None
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())  # before the last look: between that and the rename is no time to lose
        good(draft_of(path, unique))


def _put_link(path: Path, pointed: bytes, unique: str, good: Good) -> None:
    draft = draft_of(path, unique)
    try:
        os.symlink(pointed, os.fsencode(draft))
        good(draft)
        draft.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    sync(path.parent)


def _anything(_: Path) -> None:
    """Whatever it is, it was there before."""
