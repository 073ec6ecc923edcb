"""A place in the log that survives restarts and is noticed when history was rolled back."""

from __future__ import annotations

import re
from typing import NamedTuple

from universal_registry.kernel.errors import CursorMismatch, Malformed

_TEXT = re.compile(r"([0-9a-f]{12})\.(0|[1-9][0-9]{0,18})\.([0-9a-f]{8})")


class Cursor(NamedTuple):
    """`<incarnation>.<revision>.<hash8>`: everything up to and including `revision` has been read.

    `incarnation` changes when a store is made or restored; `hash8` is the first 4 bytes of the chain hash at
    `revision` in hex. Opaque to clients.
    """

    incarnation: str
    revision: int
    hash8: str

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.revision}.{self.hash8}"


class Head(NamedTuple):
    """The end of the log: the newest revision (0 when empty) and the chain hash there."""

    incarnation: str
    revision: int
    hash: bytes

    @property
    def cursor(self) -> Cursor:
        """The cursor of a reader that has read everything."""
        return Cursor(self.incarnation, self.revision, self.hash[:4].hex())


def parse_cursor(text: str) -> Cursor:
    """Read a cursor as it was handed out. Raises Malformed."""
    match = _TEXT.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise Malformed(
            f"cursor {shown!r} is not one that was handed out here", hint="use the cursor of an earlier answer"
        )
    return Cursor(match[1], int(match[2]), match[3])


def of_another_history(cursor: Cursor, head: Head) -> CursorMismatch:
    """What is said to a reader whose cursor this log does not have."""
    return CursorMismatch(
        f"cursor {cursor} is of another history of this registry",
        hint="it was restored or replaced: read everything again, then go on from the cursor given here",
        cursor=str(head.cursor),
    )
