"""What the agent knows from one run to the next: how far it is, what came, what it put where, and what is under way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from universal_registry.agent.places import check_own
from universal_registry.kernel.errors import Conflict, Invalid
from universal_registry.kernel.world import World
from universal_registry.storage.durable import UNFINISHED, replaced_file, unwritable

_WORDS = "words"


class Kept(msgspec.Struct, kw_only=True):
    """A place of ours. `mark`: of what was put there last, and runs; empty: nothing yet. `sources`: the records of
    that. `failed`: the mark of what was tried since, and `why` it did not do."""

    path: str
    form: str
    entry: str
    mark: str = ""
    sources: dict[str, int] = {}
    failed: str = ""
    why: str = ""


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What a path had. `data`: of a file its bytes, of a link its target."""

    what: Literal["nothing", "file", "link"]
    data: bytes = b""
    mode: int = 0
    owner: tuple[int, int] = (0, 0)


class Pending(msgspec.Struct, kw_only=True):
    """A change that is under way: what the path had, what it is to have (`mark` empty: nothing more of ours), and
    whether that is being taken back (`undoing`: why). `whole`: a digest of all that is written; `unique`: of its draft.
    """

    key: str
    path: str
    form: str
    entry: str
    before: Before
    mark: str
    sources: dict[str, int]
    whole: str
    unique: str
    undoing: str = ""


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What people said about places while the agent was at work: absolute paths."""

    adopt: list[str] = []
    revert: list[str] = []


class State(msgspec.Struct, kw_only=True):
    """`terms`: what `items` (documents of records) were selected by, up to `cursor`. `reported`: a digest of the report
    that the registry has."""

    registry: str
    terms: list[str]
    cursor: str = ""
    items: dict[str, dict[str, Any]] = {}
    places: dict[str, Kept] = {}
    pending: Pending | None = None
    reported: str = ""


class StateFile:
    """The state in its folder, for one agent at a time. Raises Conflict when another uses it, StorageUnavailable."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder = folder
        self._path = folder / "state.json"
        self._world = world
        self._saved = b""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_own(folder)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unwritable(error, folder) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise Conflict(
                f"another agent is at work in {folder}", hint="end it first, or name another --state"
            ) from None

    def close(self) -> None:
        """Let another agent at it."""
        os.close(self._lock)

    def load(self, registry: str, terms: list[str]) -> State:
        """The state; a new one when there is none. What is asked of the registry is listed anew when it is another.
        Raises Conflict when it is of another registry, Invalid."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return State(registry=registry, terms=terms)
        except OSError as error:
            raise Invalid(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            found = msgspec.json.decode(raw, type=State)
        except msgspec.MsgspecError:
            raise Invalid(
                f"{self._path} is no state of an agent", hint="move it away: files are then to be adopted"
            ) from None
        if found.registry != registry:
            raise Conflict(
                f"{self.folder} is of the registry {found.registry}", hint="name another --state for this one"
            )
        if found.terms != terms:
            found.terms, found.cursor, found.reported = terms, "", ""
        return found

    def save(self, state: State) -> None:
        """Keep it, whole or not at all. Raises StorageUnavailable."""
        data = msgspec.json.encode(state)
        if data == self._saved:
            return
        try:
            with replaced_file(self._path, self._world.new_id(), mode=0o600) as file:
                file.write(data)
        except OSError as error:
            raise unwritable(error, self._path) from None
        self._saved = data

    def words(self) -> list[Word]:
        """What people have said since, each told once."""
        found = []
        for path in sorted((self.folder / _WORDS).glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Word))
                path.unlink()
            except msgspec.MsgspecError:
                path.unlink()  # nobody who speaks by `leave_word` has written it
            except OSError as error:
                raise unwritable(error, path) from None
        return found

    def set_aside(self, path: Path, before: Before) -> Path:
        """Keep what a path has, for people to look at, before it is replaced because they said so."""
        kept = self.folder / "replaced" / f"{path.name}.{self._world.new_id()}"
        try:
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            with replaced_file(kept, self._world.new_id(), mode=0o600) as file:
                file.write(before.data)
        except OSError as error:
            raise unwritable(error, kept) from None
        return kept


def leave_word(folder: Path, word: Word, world: World) -> None:
    """Tell the agent that is at work in a folder. Raises StorageUnavailable."""
    path = folder / _WORDS / f"{world.new_id()}.json"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with replaced_file(path, world.new_id(), mode=0o600) as file:
            file.write(msgspec.json.encode(word))
    except OSError as error:
        raise unwritable(error, path) from None


def draft_of(path: Path, unique: str) -> Path:
    """Where the draft of a file is while it is checked."""
    return path.with_name(f".{path.name}.{unique}{UNFINISHED}")
