"""Who may have which records: for a scope of keys, the nodes of its audience. Pure.

All nodes have the same audiences (the hellos say so), so both ends of a link agree on what it carries: nothing that one
of them may not have. A record of an audience thus goes from member to member only, and no other node passes it on.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from universal_registry.kernel.ids import Key
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.registry.selector import Selector

Audiences = dict[str, tuple[str, ...]]
"""For the text of each scope the nodes, in order, that may have its records. What is in none, all may have."""


class Reach(NamedTuple):
    """What a link carries: what is `within` its scope, `without` what is for others."""

    within: Selector
    without: tuple[Selector, ...] = ()

    def covers(self, key: Key) -> bool:
        """Whether the record of that key may go over the link."""
        return self.within.covers(key) and not any(each.covers(key) for each in self.without)

    @property
    def is_narrowed(self) -> bool:
        """Whether one of the ends may not have something: then neither may take over what the other has seen, which
        would claim that it knew of records that it never gets."""
        return bool(self.without)


def barred(audiences: Audiences, *nodes: str) -> list[str]:
    """The scopes that not all of these nodes may have."""
    return [text for text, members in audiences.items() if not set(nodes) <= set(members)]


def mark_of(audiences: Audiences) -> str:
    """By which two nodes see that they have the same; nothing of what they say can be read from it by others than those
    who have guessed it. Empty when there are none."""
    return blake2b(canonical(audiences), digest_size=16).hexdigest() if audiences else ""


def with_audience(audiences: Audiences, scope: str, members: Iterable[str]) -> Audiences:
    """The audiences after these nodes were made that of a scope; of nobody: all may have its records again."""
    made = {**audiences, scope: tuple(sorted(set(members)))}
    return {text: made[text] for text in sorted(made) if made[text]}
