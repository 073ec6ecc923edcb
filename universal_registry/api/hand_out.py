"""What is new, handed out to many readers in one go: made once for all who are told the same, and written at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from universal_registry.api.watcher import Place, Stand

_FIRST = 32
"""Readers that are told before anybody else has a turn: the answer to the write that they hear of waits for them."""
_AT_ONCE = 512


class Shared(NamedTuple):
    """What one was told, for others at the same place: where it stood after that, how much that was, as sent, and when
    by the loop's clock."""

    leader: Stand
    events: int
    messages: int
    data: bytes
    at: float


Made = dict[tuple[str, Place], Shared]
"""What was made already, by the form in which it is sent and the place that it was made for."""


class Reader(Protocol):
    """Who is told."""

    def tell(self, made: Made, /) -> None:
        """Take what is new and write it, as it was made for others or for them. Waits for nothing, raises nothing."""
        ...


def hand_out(readers: Iterator[Reader]) -> None:
    """Tell all of them: some now, the others in turns, so that whatever else there is goes on in between."""
    _some(readers, {}, _FIRST)


def _some(left: Iterator[Reader], made: Made, most: int) -> None:
    for count, reader in enumerate(left, 1):
        reader.tell(made)
        if count == most:
            asyncio.get_running_loop().call_soon(_some, left, made, _AT_ONCE)
            return
