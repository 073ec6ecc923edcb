"""The simulator's oracle: the full causal history, kept beside the product and compared with it after every step.

It knows of each write which writes its author could see, and of each node which writes have reached it. What a node
must hold follows: every write that reached it and that no other which reached it has replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from universal_registry.kernel.ids import Key
from universal_registry.sync.version import LIFE, NOTHING, Dot, State, Vector

Seen = dict[Key, frozenset[int]]
"""The writes that have reached a node, by record."""


class Violation(Exception):
    """The product does not hold what it must."""


class Write(NamedTuple):
    """One version that somebody made: where, its dot, whether it is a removal, and which writes it replaced."""

    key: Key
    path: str
    dot: Dot
    gone: bool
    replaces: frozenset[int]


class Oracle:
    """All writes there ever were."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self._known_dots: set[tuple[Key, str, Dot]] = set()
        self._unsaid: set[int] = set()

    def note(self, seen: Seen, key: Key, after: State) -> None:
        """A node wrote, and has this state now. `seen`: what had reached it, to which its own writes are added.

        Each new version replaces all that its author could see at its path; a deletion, all of the record.
        """
        known = seen.get(key, frozenset())
        live = self.live(known)
        everything = frozenset[int]().union(*live.values())
        for path, versions in sorted(after.fields.items()):
            for version in versions:
                if (key, path, version.dot) in self._known_dots:
                    continue
                replaced = everything if path == LIFE and version.gone else live.get(path, frozenset())
                self._known_dots.add((key, path, version.dot))
                known |= {len(self.writes)}
                self.writes.append(Write(key, path, version.dot, version.gone, replaced))
        seen[key] = known

    def unsay(self, origin: str, above: int, seen: Iterable[Seen]) -> None:
        """A restored node goes on as the same origin, from this number: it had told nobody of what it wrote above, and
        will give those numbers again. Raises Violation if somebody has them."""
        for number, write in enumerate(self.writes):
            if write.dot.origin == origin and write.dot.number > above and number not in self._unsaid:
                if any(number in each.get(write.key, ()) for each in seen):
                    raise Violation(f"{write.dot} of {write.key} is elsewhere, and will be given again")
                self._unsaid.add(number)
                self._known_dots.discard((write.key, write.path, write.dot))

    def settled_by(self, known: frozenset[int]) -> frozenset[int]:
        """These writes, with removals, which may have been purged, and all that any of them replaced, and those in
        turn: from the newest on, for a write only replaces earlier ones."""
        settled = set(known)
        for number in range(len(self.writes) - 1, -1, -1):
            write = self.writes[number]
            if write.gone:
                settled.add(number)
            if number in settled:
                settled |= write.replaces
        return frozenset(settled)

    def live(self, known: frozenset[int]) -> dict[str, frozenset[int]]:
        """Of some writes of a record those that none of them has replaced, by path."""
        replaced: set[int] = set()
        for number in known:
            replaced |= self.writes[number].replaces
        live: dict[str, set[int]] = {}
        for number in known - replaced:
            live.setdefault(self.writes[number].path, set()).add(number)
        return {path: frozenset(numbers) for path, numbers in live.items()}

    def check_states(self, name: str, seen: Seen, states: dict[Key, State]) -> None:
        """The node holds exactly what it must, but for removals, which may have been purged. Raises Violation."""
        for key in seen.keys() | states.keys():
            wanted = self.live(seen.get(key, frozenset()))
            state = states.get(key, NOTHING)
            for path in wanted.keys() | state.fields.keys():
                must = {self.writes[number].dot for number in wanted.get(path, ())}
                has = {version.dot for version in state.fields.get(path, ())}
                removals = {self.writes[number].dot for number in wanted.get(path, ()) if self.writes[number].gone}
                if not must - removals <= has <= must:
                    raise Violation(f"{name} holds {sorted(has)} of {key} {path}, and must hold {sorted(must)}")

    def check_vector(self, name: str, seen: Seen, vector: Vector) -> None:
        """The node's vector covers no write that has not reached it. Raises Violation."""
        for number, write in enumerate(self.writes):
            covered = write.dot.number <= vector.get(write.dot.origin, 0) and number not in self._unsaid
            if covered and number not in seen.get(write.key, frozenset()):
                raise Violation(f"{name} claims to have seen {write.dot} of {write.key} {write.path}, and has not")
