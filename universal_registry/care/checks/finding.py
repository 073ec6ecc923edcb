"""What a check sees, and what it says."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec


class State(StrEnum):
    """How it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


class Finding(msgspec.Struct, frozen=True):
    """What a check found. `why`: in one line. `command`: the one that puts it right; empty when all is well."""

    group: str
    name: str
    state: State
    why: str
    command: str = ""


class Said(NamedTuple):
    """What a check says. `fix`: the name of a repair that is safe to be made without asking, if there is one."""

    state: State
    why: str
    command: str = ""
    fix: str = ""


class Facts(msgspec.Struct, kw_only=True):
    """What was seen of a registry, without changing anything. What could not be seen is None, or empty.

    `modes`: permission bits by the name of a file or folder. `broken`: what the engine says of each store; `unread`:
    why it could not look. `status`, `health`, `keys`: what the registry answers; `silent`: why it does not. `sizes`:
    bytes. `half`: why what is there is no registry, and `half_command` what mends it. `key_replaced`: the id of a key
    that stands in the place of the one that seals. `token_is_one`: whether config/admin.token holds a token. `frozen`:
    the process id of a holder that was told to stand still.
    """

    now: datetime
    home: str = "."
    engine: str = "sqlite"
    initialised: bool = True
    home_writable: bool = True
    free_bytes: int = 1 << 40
    modes: dict[str, int] = {}
    sizes: dict[str, int] = {}
    half: str = ""
    half_command: str = ""
    token_is_one: bool | None = None
    holder: str = ""
    holder_is_daemon: bool = False
    frozen: int = 0
    answers: bool = False
    stale_address: bool = False
    port_taken: str = ""
    broken: dict[str, str] = {}
    unread: str = ""
    pending: int = 0
    newer: str = ""
    key_trouble: str = ""
    key_command: str = "ureg key restore FILE"
    key_replaced: str = ""
    silent: str = ""
    status: dict[str, Any] = {}
    health: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    marks: dict[str, dict[str, Any]] = {}
    backup_folder: str = ""
    backup_age: float | None = None
    backup_interval: float = 86400.0
    metrics_age: float | None = None
    tls_until: datetime | None = None
    open_to_others: bool = False
    settings_warnings: tuple[str, ...] = ()
    settings_trouble: str = ""

    def path(self, name: str) -> str:
        """A file of the home, as a shell takes it."""
        return shlex.quote(f"{self.home}/{name}" if name else self.home)


class Need(StrEnum):
    """What must be there for a check to have something to look at. ANSWER: a registry that could be opened."""

    NOTHING = ""
    REGISTRY = "registry"
    ANSWER = "answer"

    def lacking(self, facts: Facts) -> str:
        """Why there is nothing to look at, or nothing."""
        if self is not Need.NOTHING and not facts.initialised:
            return "no registry can be opened here"
        return "the registry does not open" if self is Need.ANSWER and facts.silent else ""


class Check(NamedTuple):
    """A row of the table."""

    group: str
    name: str
    look: Callable[[Facts], Said]
    needs: Need = Need.NOTHING

    def said(self, facts: Facts) -> Said:
        """What it says. What it could not look at is never well; what is wrong all the same is said."""
        said, lacking = self.look(facts), self.needs.lacking(facts)
        return skip(lacking) if lacking and said.state is not State.FAIL else said


def ok(why: str) -> Said:
    """All is well."""
    return Said(State.OK, why)


def skip(why: str) -> Said:
    """It was not looked at."""
    return Said(State.SKIP, f"not looked at: {why}")


def warn(why: str, command: str, fix: str = "") -> Said:
    """It works, and somebody should know."""
    return Said(State.WARN, why, command, fix)


def fail(why: str, command: str, fix: str = "") -> Said:
    """It does not work, or soon will not."""
    return Said(State.FAIL, why, command, fix)
