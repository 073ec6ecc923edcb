"""The simulator's nodes, and the connections between them: frames wait in queues until the simulator delivers them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from universal_registry.kernel.ids import Key
from universal_registry.registry.selector import Selector
from universal_registry.sync.audience import Reach
from universal_registry.sync.greeting import Link
from universal_registry.sync.identity import Identity
from universal_registry.sync.oracle import Seen
from universal_registry.sync.session import Phase, Session
from universal_registry.sync.simworld import Disk, SimWorld

_MEMBERS = ("A", "B")
_BATCH_BYTES = 300
"""Most batches hold one record, so that links break in the middle of a feed."""


class Frame(NamedTuple):
    """Bytes on their way, and what had reached the sender when it wrote them."""

    data: bytes
    seen: Seen


class Node:
    """A machine: its registry, its clock, and what has reached it."""

    def __init__(self, name: str, disk: Disk, world: SimWorld, seen: Seen | None = None) -> None:
        self.name = name
        self.disk = disk
        self.world = world
        self.seen: Seen = seen or {}
        self.backup: tuple[Any, Seen] | None = None

    @property
    def is_member(self) -> bool:
        """Of the audience of what is limited, in runs where something is. A copy is what it is a copy of."""
        return self.name.upper() in _MEMBERS


class Wire:
    """A connection of two nodes: a session at each end, and frames under way to each."""

    def __init__(self, ends: tuple[Node, Node], identities: tuple[Identity, Identity], limited: Key | None) -> None:
        self.ends = ends
        reach = Reach(Selector())
        if limited is not None and not (ends[0].is_member and ends[1].is_member):
            reach = Reach(Selector(), (Selector(kinds=(limited.kind,), names=(limited.name,)),))
        self.sessions = tuple(
            Session(here.disk, Link(there.node, "", reach), here.world, batch_bytes=_BATCH_BYTES)
            for here, there in zip(ends, identities[::-1], strict=True)
        )
        self.queues: tuple[deque[Frame], deque[Frame]] = (deque(), deque())
        """To the first end, and to the second."""

    def send(self, end: int, frames: Sequence[bytes]) -> None:
        """From one end to the other."""
        seen = dict(self.ends[end].seen)
        self.queues[1 - end].extend(Frame(data, seen) for data in frames)

    @property
    def is_over(self) -> bool:
        return any(session.phase is Phase.ENDED for session in self.sessions)
