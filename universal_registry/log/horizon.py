"""How far back the change log is whole. Behind that, compaction may have dropped what later lines made out of date."""

from __future__ import annotations

import msgspec

from universal_registry.kernel.errors import CursorGone
from universal_registry.log.chain import GENESIS
from universal_registry.log.cursor import Cursor, Head


class Horizon(msgspec.Struct, frozen=True, kw_only=True):
    """Two revisions, `lines` <= `values`. Nothing about records in namespace `system` is ever dropped.

    `values`: of lines up to it, a body may be gone (None) if a later line up to it is about the same record, and that
    of an event. So whoever has read up to `values`, or further, still gets everything.
    `lines`: of lines up to it, the whole line may be gone; what is left of each record that was there then is its
    newest line. Whoever has read less than that cannot be told what was deleted meanwhile.

    `hash`: the chain after revision `lines`. `living`: how many records there were then.
    """

    values: int = 0
    lines: int = 0
    hash: bytes = GENESIS
    living: int = 0

    @property
    def hash8(self) -> str:
        """As in the cursor of whoever has read up to `lines`."""
        return self.hash[:4].hex()

    def check(self, cursor: Cursor, head: Head) -> None:
        """Raises CursorGone (with `data["cursor"]`) for a cursor from which nobody can go on any more."""
        if cursor.revision < self.lines:
            raise gone(self, head)


def gone(horizon: Horizon, head: Head) -> CursorGone:
    """What is said to a reader from before the horizon."""
    return CursorGone(
        f"the change log begins behind revision {horizon.lines}: what was before is not kept any more",
        hint="read what is there (a watch: from=list), then go on from the cursor given with it",
        cursor=str(head.cursor),
    )
