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

    `modes`: permission bits by the name of a file or folder. `broken`: what the engine says of each store. `status`,
    `health`, `keys`: what the registry answers; `silent`: why it does not. `sizes`: bytes.
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
    holder: str = ""
    holder_is_daemon: bool = False
    answers: bool = False
    stale_address: bool = False
    port_taken: str = ""
    broken: dict[str, str] = {}
    pending: int = 0
    newer: str = ""
    key_trouble: str = ""
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

    def path(self, name: str) -> str:
        """A file of the home, as a shell takes it."""
        return shlex.quote(f"{self.home}/{name}" if name else self.home)


class Check(NamedTuple):
    """A row of the table."""

    group: str
    name: str
    look: Callable[[Facts], Said]


def ok(why: str) -> Said:
    """All is well."""
    return Said(State.OK, why)


def warn(why: str, command: str, fix: str = "") -> Said:
    """It works, and somebody should know."""
    return Said(State.WARN, why, command, fix)


def fail(why: str, command: str, fix: str = "") -> Said:
    """It does not work, or soon will not."""
    return Said(State.FAIL, why, command, fix)
