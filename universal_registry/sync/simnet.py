"""The simulator's nodes, and the connections between them: frames wait in queues until the simulator delivers them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from universal_registry.sync.greeting import Link
from universal_registry.sync.identity import Identity
from universal_registry.sync.oracle import Seen
from universal_registry.sync.session import Phase, Session
from universal_registry.sync.simworld import LIMITED_SCOPE, Disk, SimWorld

_BATCH_BYTES = 300
"""Most batches hold one record, so that links break in the middle of a feed."""


class Frame(NamedTuple):
    """Bytes on their way, and what had reached the sender when it wrote them."""

    data: bytes
    seen: Seen


class Node:
    """A machine: its registry, its clock, and what has reached it."""

    def __init__(self, name: str, id_: str, disk: Disk, world: SimWorld, seen: Seen | None = None) -> None:
        self.name = name
        self.id = id_
        self.disk = disk
        self.world = world
        self.seen: Seen = seen or {}
        self.backup: tuple[Any, Seen] | None = None


def may_have(identity: Identity, node: str) -> bool:
    """Whether that node may have the limited record, by what the one of this identity was told."""
    return node in identity.audiences.get(LIMITED_SCOPE, (node,))


class Wire:
    """A connection of two nodes: a session at each end, and frames under way to each. `carries_limited`: both ends may
    have the record that has an audience, as far as either knows."""

    def __init__(self, ends: tuple[Node, Node], identities: tuple[Identity, Identity]) -> None:
        self.ends = ends
        self.carries_limited = all(may_have(each, node.id) for each in identities for node in ends)
        self.sessions = tuple(
            Session(
                here.disk,
                Link(there.node, "", here.disk.reach(own, there.node), own.audiences),
                here.world,
                batch_bytes=_BATCH_BYTES,
            )
            for here, own, there in zip(ends, identities, identities[::-1], strict=True)
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
