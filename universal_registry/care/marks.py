"""What was done for a registry's safety, and when: `care.json` in its home, for `ureg doctor` and `ureg checklist`.

In no store, since it speaks of what is outside of them: where the keys were written to, what a drill has shown.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from universal_registry.kernel.world import World
from universal_registry.storage.durable import replaced_file

KEY_BACKUP, BACKUP, DRILL = "key_backup", "backup", "drill"
_NAME = "care.json"
_Marks = dict[str, dict[str, Any]]


def marks(home: Path) -> _Marks:
    """All marks, by what was done; each has `at` (RFC 3339, UTC). None can be read where there are none."""
    try:
        return msgspec.json.decode((home / _NAME).read_bytes(), type=_Marks)
    except (OSError, msgspec.DecodeError):
        return {}


def mark(home: Path, what: str, world: World, **facts: Any) -> None:
    """Remember that it was done now. A home that cannot be written remembers nothing: what was done is done."""
    at = world.now().isoformat(timespec="seconds").replace("+00:00", "Z")
    text = msgspec.json.format(msgspec.json.encode({**marks(home), what: {"at": at, **facts}}), indent=2)
    with contextlib.suppress(OSError), replaced_file(home / _NAME, world.new_id()) as file:
        file.write(text + b"\n")


def moment(mark_of: dict[str, Any]) -> datetime | None:
    """When it was done; None where that cannot be read."""
    try:
        return datetime.fromisoformat(str(mark_of.get("at")))
    except ValueError:
        return None
