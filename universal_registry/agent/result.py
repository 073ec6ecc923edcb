"""What came of one place."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Standing(StrEnum):
    """`running`: as the registry has it, checked, reloaded, healthy. `received`: it came and did not do; what was there
    before is there. `held`: not touched. `removed`: gone, as its records are."""

    RUNNING = "running"
    RECEIVED = "received"
    HELD = "held"
    REMOVED = "removed"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`sources`: the records that are meant -> their revisions; `running`: those that run meanwhile. `changed`:
    something was done just now. `before`, `after`: the whole file, of what is only foreseen."""

    path: str
    entry: str
    standing: Standing
    sources: Mapping[str, int]
    why: str = ""
    running: Mapping[str, int] = {}
    changed: bool = False
    before: bytes | None = None
    after: bytes | None = None
