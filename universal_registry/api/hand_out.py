"""What is new, handed out to many readers in one go: made once for all who are told the same, and written at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
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


def hand_out(readers: Iterable[Reader]) -> None:
    """Tell all of them: some now, the others in turns, so that whatever else there is goes on in between."""
    _some(tuple(readers), 0, _FIRST, {})


def _some(readers: Sequence[Reader], start: int, most: int, made: Made) -> None:
    for reader in readers[start : start + most]:
        reader.tell(made)
    if start + most < len(readers):
        asyncio.get_running_loop().call_soon(_some, readers, start + most, _AT_ONCE, made)
