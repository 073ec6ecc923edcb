"""Where something may stand on this machine: below an allowed root, in real folders that nobody else can change."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

from universal_registry.kernel.errors import Refused
from universal_registry.kernel.visible import escaped

_LONGEST = 4000


class Root(NamedTuple):
    """A folder that may be written below. `said`: as the plan has it; `real`: with every link in it followed."""

    said: Path
    real: Path


class Places:
    """Says where. `kept`: files and folders of the agent itself, which nothing that arrives may touch."""

    def __init__(self, roots: Sequence[Root], kept: Iterable[Path]) -> None:
        self._roots = roots
        self._kept = [Path(os.path.realpath(path)) for path in kept]

    def place(self, text: str) -> Path:
        """The path, with the links of its root followed and no others in it. Raises Refused."""
        path = self._below(text)
        for own in self._kept:
            if path == own or own in path.parents or path in own.parents:
                raise Refused(f"{_shown(text)} is the agent's own")
        return path

    def covers(self, path: Path) -> bool:
        """Whether it is below a root. After a change of the plan, or of its folders, a place may not be any more."""
        return any(root.real in path.parents for root in self._roots)

    def check(self, path: Path) -> None:
        """What leads to a place is as it was when the place was chosen: real folders, of this user or of root, that not
        everybody may write into. Those that are missing yet do no harm. Raises Refused."""
        root = next((root.real for root in self._roots if root.real in path.parents), None)
        if root is None:
            raise Refused(f"{_shown(path)} is below no allowed folder any more")
        for folder in [root, *reversed([each for each in path.parents if root in each.parents])]:
            try:
                found = folder.lstat()
            except FileNotFoundError:
                return
            except OSError as error:
                raise Refused(f"{_shown(folder)} cannot be looked at: {error.strerror}") from None
            if not stat.S_ISDIR(found.st_mode):
                what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no folder"
                raise Refused(f"{_shown(folder)} is {what}")
            if found.st_uid not in (os.geteuid(), 0):
                raise Refused(f"{_shown(folder)} is another user's")
            if found.st_mode & stat.S_IWOTH:
                raise Refused(f"everybody may write into {_shown(folder)}")
            if found.st_mode & stat.S_IWGRP and found.st_gid not in (os.getegid(), 0):
                raise Refused(f"another group may write into {_shown(folder)}")

    def check_link(self, path: Path, target: str, further: Sequence[Root]) -> None:
        """A link at `path` may point to `target`: below a root, or one of `further`. Raises Refused."""
        check_text(target, "the target of a link")
        steps = target.split("/")
        if ".." in dropwhile("..".__eq__, steps):  # behind a link it would lead to where that points
            raise Refused(f"the link would point to {_shown(target)}: .. may stand at its beginning only")
        pointed = os.path.normpath(path.parent / target)
        if not any(_is_below(pointed, root) for root in (*self._roots, *further)):
            raise Refused(f"the link would point to {_shown(target)}, which is below no allowed folder")

    def _below(self, text: str) -> Path:
        check_text(text, "a path")
        if not text.startswith("/") or len(text.encode()) > _LONGEST:
            raise Refused(f"{_shown(text)} is no absolute path")
        if text.endswith("/") or {".", ".."} & set(text.split("/")):
            raise Refused(f"{_shown(text)} is no plain path of a file")
        plain = Path(os.path.normpath(text))
        for root in self._roots:
            for folder in root:
                if folder in plain.parents:
                    return root.real / plain.relative_to(folder)
        raise Refused(f"{_shown(text)} is below no allowed folder")


def make_root(text: str, home: str) -> Root:
    """A root of a plan; `~` is the home folder. Raises Refused when it is no folder to allow."""
    check_text(text, "a root")
    said = os.path.normpath(home + text[1:] if text == "~" or text.startswith("~/") else text)
    real = os.path.realpath(said)
    if not said.startswith("/") or real == "/":
        raise Refused(
            f"{_shown(text)} cannot be a root", hint="name a folder by its whole path, and not all of the machine"
        )
    if not os.path.isdir(real):
        raise Refused(f"the root {_shown(text)} is no folder", hint="make it, or name another")
    return Root(Path(said), Path(real))


def check_own(path: Path) -> None:
    """What decides what is done is this user's or root's, and not everybody's. Raises Refused, OSError."""
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
        raise Refused(f"{path} may be changed by others, and says what is done here", hint="chown it, chmod go-w")


def check_text(text: str, what: str) -> str:
    """The text, which can be shown in one line and given to the system. Raises Refused."""
    if not text or any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise Refused(f"{what} is empty" if not text else f"{what} holds a control character: {_shown(text)}")
    return text


def _is_below(path: str, root: Root) -> bool:
    return any(folder == Path(path) or folder in Path(path).parents for folder in root)


def _shown(text: object) -> str:
    return escaped(str(text))[:200]
