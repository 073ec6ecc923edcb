"""What must hold of the simulator's nodes among one another: nobody has what is not for him, and in the end all that
may have a record hold and show the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.kernel.ids import Key
from universal_registry.sync.merge import purged
from universal_registry.sync.oracle import Oracle, Violation
from universal_registry.sync.simnet import Node, Wire
from universal_registry.sync.simworld import KEYS, LIMITED, SETS, Spec
from universal_registry.sync.version import Known, State


class Checks:
    """Of one run. `members`: the nodes that may have the limited record, as was told last; none: all may."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.members: tuple[str, ...] = ()

    def share(self, one: Node, other: Node, key: Key) -> bool:
        """Whether both are to hold the same of a record."""
        return key != LIMITED or one is other or not self.members or {one.id, other.id} <= set(self.members)

    def held_for(self, node: Node, nodes: Sequence[Node]) -> frozenset[int]:
        """The writes that somebody holds now, and that a node must come to know of."""
        found: set[int] = set()
        for other in nodes:
            for key, known in other.seen.items():
                if self.share(node, other, key):
                    found |= known
        return frozenset(found)

    async def check_equal(self, nodes: Sequence[Node], held: Sequence[frozenset[int]]) -> None:
        """All hold and show the same, and each all that it must. Raises Violation, Corrupt."""
        found = [await _all_of(node) for node in nodes]
        for node, must, ours in zip(nodes, held, found, strict=True):
            known = frozenset(number for each in node.seen.values() for number in each)
            if lacking := must - self._oracle.settled_by(known):
                raise Violation(f"{node.name} lacks {len(lacking)} writes that somebody held")
            for key in KEYS:
                if self.share(node, nodes[0], key) and ours[key] != found[0][key]:
                    raise Violation(
                        f"{node.name} holds and shows {ours[key]} of {key}, {nodes[0].name} {found[0][key]}"
                    )
            await node.disk.check()


def check_apart(wire: Wire, known: Sequence[Known]) -> None:
    """Nothing of the limited record goes over a link of which an end may not have it. Raises Violation."""
    if not wire.carries_limited and any(key == LIMITED for key, _ in known):
        raise Violation(f"{LIMITED} went between {wire.ends[0].name} and {wire.ends[1].name}, who may not both have it")


def check_in_sync(wires: Sequence[Wire]) -> None:
    """Every link says so. Raises Violation."""
    for wire in wires:
        phases = [str(session.phase) for session in wire.sessions]
        if phases != ["in_sync", "in_sync"]:
            raise Violation(f"{wire.ends[0].name}-{wire.ends[1].name} are {phases}")


async def _all_of(node: Node) -> dict[Key, Any]:
    """What a reader sees, and the versions behind it."""
    identity, states = await node.disk.held()
    found: dict[Key, Any] = {}
    for key in KEYS:
        state = purged(states.get(key, State()), identity.vector)
        live = {path: v for path, v in state.fields.items() if not all(version.gone for version in v)}
        dots = {path: [version.dot for version in versions] for path, versions in sorted(live.items())}
        found[key] = (_in_order(await node.disk.shown(key)), dots)
    return found


def _in_order(shown: Spec | None) -> Spec | None:
    """With the array that is a set, and so has no order, in one."""
    if shown is None or SETS not in shown:
        return shown
    return {**shown, SETS: sorted(shown[SETS])}
