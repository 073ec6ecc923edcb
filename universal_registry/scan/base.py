"""What every reader of this machine shares: the machine, what is found, what is skipped, and careful file access.

Paths in records and messages are *logical*: as a program on the scanned machine would write them (`/etc/passwd`),
also when the tree is mounted elsewhere (`Machine.root`). A reader only reads: nothing found is run, sourced or opened
for writing. Every access is bounded and refuses what is not a plain file, so that a FIFO, a device, a loop of links or
a folder of a million entries ends in one `Skipped` line.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import check_name

LABEL = "scan"
HOME_LABEL = "scan.home"
PERSONAL = frozenset({"aliases", "functions", "dotfiles", "ssh", "environment", "git", "themes", "path"})
"""Readers of which each person of a machine sees something else: their records say whose home was looked at."""
TEXT_BYTES = 16 << 20
VALUE_BYTES = 64 << 10
FOLDER_ENTRIES = 200_000
NOTES = 1000
_TITLE_CHARS = 200
_LINKS = 40
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH})
_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Machine:
    """What is scanned. Nothing below reads the process environment or a clock; it is all in here.

    `root` is usually `/`. `home` and `folders` (where git repositories are looked for) are logical paths;
    a path that already lies below `root` is understood as well.
    """

    root: Path
    home: Path
    hostname: str
    environ: Mapping[str, str]
    folders: tuple[Path, ...]
    platform: str

    def logical(self, path: Path | str) -> str:
        """`path` as the scanned machine writes it, absolute and normalised."""
        text = os.fspath(path)
        root = os.fspath(self.root).rstrip("/")
        if root and (text == root or text.startswith(root + "/")):
            text = text[len(root) :]
        return os.path.normpath("/" + text.lstrip("/"))

    def at_home(self, *parts: str) -> str:
        """The logical path of something in the home folder."""
        return os.path.normpath("/".join((self.logical(self.home), *parts)))

    def search_path(self) -> list[str]:
        """The absolute entries of PATH in order, without repetition."""
        entries = self.environ.get("PATH", "").split(":")
        return list(dict.fromkeys(os.path.normpath(entry) for entry in entries if entry.startswith("/")))


@dataclass(frozen=True, slots=True)
class Found:
    """One thing of this machine, ready to be put as a record. `labels["scan"]` names the reader,
    `labels["scan.home"]` the home folder that a personal reader looked at."""

    kind: str
    name: str
    classification: str | None
    spec: dict[str, Any]
    labels: dict[str, str]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that a reader met and did not take, and why. `path` is logical, or says which thing it was."""

    reason: str
    path: str


class Reader(Protocol):
    """One source of records."""

    @property
    def name(self) -> str:
        """The word for it on the command line, and the value of the label `scan`."""
        ...

    @property
    def doc(self) -> str:
        """One line for people."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds it yields."""
        ...

    def sources(self, machine: Machine) -> list[str]:
        """The logical paths (or names) it will read, to be printed before anything is read."""
        ...

    def read(self, machine: Machine) -> Iterator[Found | Skipped]:
        """Everything found, and after it everything skipped. Never raises for what the machine holds."""
        ...


@dataclass(frozen=True, slots=True)
class SourceReader:
    """A `Reader` made of two functions: where it looks, and what it finds there."""

    name: str
    doc: str
    kinds: tuple[str, ...]
    where: Callable[[Machine], list[str]]
    find: Callable[[Source], Iterator[Found]]

    def sources(self, machine: Machine) -> list[str]:
        return self.where(machine)

    def read(self, machine: Machine) -> Iterator[Found | Skipped]:
        source = Source(machine, self.name)
        yield from self.find(source)
        yield from source.skipped
        if source.unlisted:
            yield Skipped(f"{source.unlisted} more like these were skipped", self.name)


def always(*paths: str) -> Callable[[Machine], list[str]]:
    """The `where` of a reader whose sources are the same on every machine."""
    return lambda _machine: list(paths)


@dataclass(slots=True)
class Source:
    """The machine as one reader sees it: reads that never raise, and the list of what was skipped.

    A thing that does not exist is silently absent (None or empty); a thing that cannot be read is noted in `skipped`.
    """

    machine: Machine
    reader: str
    skipped: list[Skipped] = field(default_factory=list)
    unlisted: int = 0

    def skip(self, reason: str, path: str) -> None:
        """Note that `path` was not taken. After `NOTES` of them, only their number is kept."""
        if len(self.skipped) >= NOTES:
            self.unlisted += 1
            return
        self.skipped.append(Skipped(brief(shown(reason), 300), brief(shown(path), 500)))

    def found(
        self, kind: str, name: str, classification: str | None, spec: Mapping[str, Any], title: str = ""
    ) -> Iterator[Found]:
        """The record, cleaned; or nothing and a note, when its name or size cannot be stored."""
        try:
            checked = check_name(shown(name))
        except Invalid as refused:
            self.skip(f"{kind} with a name that no record can have: {refused.message}", brief(shown(name)))
            return
        cleaned = clean(spec)
        if largest(cleaned) > VALUE_BYTES:
            self.skip(f"{kind} holds a value of more than {VALUE_BYTES >> 10} KiB", checked)
            return
        heading = _BLANK.sub(" ", shown(title)).strip()[:_TITLE_CHARS].strip()
        labels = {LABEL: self.reader}
        if self.reader in PERSONAL:
            labels[HOME_LABEL] = home_of(self.machine)
        yield Found(kind, checked, classification, cleaned, labels, heading)

    def text(self, path: str, limit: int = TEXT_BYTES) -> str | None:
        """The whole file as text, what is not UTF-8 replaced visibly. None when absent, unreadable or too large."""
        data = self._read(path, limit + 1)
        if data is None:
            return None
        if len(data) > limit:
            self.skip(f"larger than {limit} bytes", path)
            return None
        return data.decode("utf-8", "replace")

    def head(self, path: str, size: int) -> bytes | None:
        """The first `size` bytes of a file."""
        return self._read(path, size)

    def entries(self, path: str, limit: int = FOLDER_ENTRIES) -> list[os.DirEntry[str]]:
        """The entries of a folder, sorted by name. A folder of more than `limit` entries is skipped whole."""
        real = self.real(path)
        if real is None:
            return []
        listed: list[os.DirEntry[str]] = []
        try:
            with os.scandir(real) as scan:
                for entry in scan:
                    if len(listed) >= limit:
                        self.skip(f"more than {limit} entries in this folder", path)
                        return []
                    listed.append(entry)
        except OSError as error:
            self._note(error, path)
            return []
        return sorted(listed, key=lambda entry: entry.name)

    def names(self, path: str, limit: int = FOLDER_ENTRIES) -> list[str]:
        """The names in a folder, sorted."""
        return [entry.name for entry in self.entries(path, limit)]

    def stat(self, path: str) -> os.stat_result | None:
        """What the path leads to. None when it leads nowhere."""
        real = self.real(path)
        if real is None:
            return None
        try:
            return os.stat(real)
        except OSError:
            return None

    def link(self, path: str) -> str | None:
        """Where a symbolic link points, as written in it. None when it is not a link."""
        parent, _, name = path.rpartition("/")
        real = self.real(parent or "/")
        try:
            return None if real is None else os.readlink(os.path.join(real, name))
        except (OSError, ValueError):
            return None

    def real(self, path: str) -> str | None:
        """Where the logical path is on the machine that scans; links never lead out of `root`."""
        try:
            usable = b"\0" not in os.fsencode(path)
        except UnicodeEncodeError:
            usable = False
        if not usable:
            self.skip("not a path that a file can have", path)
            return None
        root = os.fspath(self.machine.root).rstrip("/")
        if not root:
            return path
        inside = _resolve(root, path)
        if inside is None:
            self.skip("a loop of symbolic links", path)
        return inside

    def _read(self, path: str, size: int) -> bytes | None:
        real = self.real(path)
        if real is None:
            return None
        try:
            if not stat.S_ISREG(os.stat(real).st_mode):  # before opening: opening a device may already act on it
                self.skip("not a plain file", path)
                return None
            handle = os.open(real, _OPEN)
        except OSError as error:
            self._note(error, path)
            return None
        try:
            return self._drain(handle, path, size)
        finally:
            os.close(handle)

    def _drain(self, handle: int, path: str, size: int) -> bytes | None:
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                self.skip("not a plain file", path)
                return None
            parts: list[bytes] = []
            left = size
            while left > 0 and (part := os.read(handle, min(left, 1 << 20))):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        except OSError as error:
            self._note(error, path)
            return None

    def _note(self, error: OSError, path: str) -> None:
        if error.errno not in _ABSENT:
            self.skip((error.strerror or "unreadable").lower(), path)


def _resolve(root: str, logical: str) -> str | None:
    parts = deque(logical.split("/"))
    done: list[str] = []
    links = 0
    while parts:
        part = parts.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        try:
            target = os.readlink("/".join((root, *done, part)))
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _LINKS:
            return None
        if target.startswith("/"):
            done = []
        parts.extendleft(reversed(target.split("/")))
    return "/".join((root, *done))


def shown(text: str) -> str:
    """`text` as it can be stored: a byte that is not UTF-8, a lone surrogate or a NUL becomes U+FFFD."""
    return _UNSAFE.sub("\ufffd", text)


def home_of(machine: Machine) -> str:
    """The home folder as the label `scan.home` says it."""
    return shown(machine.at_home())


def brief(text: str, limit: int = 80) -> str:
    """`text` shortened for a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def clean(value: Any) -> Any:
    """A copy fit for a spec: safe text, and no field whose value is None."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown(str(key)): clean(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value if item is not None]
    return value


def largest(value: Any) -> int:
    """The bytes of the longest string in a cleaned value."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, dict):
        return max(map(largest, value.values()), default=0)
    if isinstance(value, list):
        return max(map(largest, value), default=0)
    return 0


def whole(text: str, most: int = 2**53 - 1) -> int | None:
    """A number of plain ASCII digits up to `most`, else None."""
    if not (0 < len(text) <= 16 and text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= most else None
