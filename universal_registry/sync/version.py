"""Versions of the fields of one record, and the vectors that say which versions a registry has seen.

A registry's write of a record gets a dot: its origin (node and epoch) and a number that only rises. A vector holds, for
each origin, the number up to which everything has been seen; whatever it covers and is not there was replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.kernel.jsonvalue import canonical

LIFE = "#life"
"""The path of the register that says whether the record is there; a deletion is a version of it that is gone."""

_COUNTER_BITS = 16


class Dot(NamedTuple):
    """Which write a version is of. `origin`: `<node>-<epoch>`, so that origins sort by node, then epoch."""

    origin: str
    number: int


class Version(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One version of one field. `stamp` only chooses what is shown among versions that knew nothing of one another;
    it never decides what is kept. `gone`: the field was removed; then `value` is None."""

    origin: str
    number: int
    stamp: int
    value: Any = None
    gone: bool = False

    @property
    def dot(self) -> Dot:
        return Dot(self.origin, self.number)

    @property
    def rank(self) -> tuple[int, str, int]:
        """Of concurrent versions, the one of the highest rank is shown: the same on every node."""
        return (self.stamp, self.origin, self.number)


Versions = tuple[Version, ...]
Vector = dict[str, int]


class State(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one record: for each path the versions that nobody has replaced, the one of the highest rank
    first; and what was seen of it beyond the vector of the registry that holds this."""

    fields: dict[str, Versions] = {}
    context: Vector = {}


NOTHING = State()


class Known(NamedTuple):
    """A record's key and what is known of it."""

    key: Key
    state: State


def covers(vector: Mapping[str, int], version: Version) -> bool:
    """Whether whoever has this vector has seen the version."""
    return version.number <= vector.get(version.origin, 0)


def joined(one: Mapping[str, int], other: Mapping[str, int]) -> Vector:
    """What both have seen together."""
    both = dict(one)
    for origin, number in other.items():
        if number > both.get(origin, 0):
            both[origin] = number
    return both


def lag_of(ours: Mapping[str, int], there: Mapping[str, int]) -> dict[str, int]:
    """By node, how many numbers of it there are that we have not come to. A new origin of a node goes on, as a rule,
    where its last one ended."""
    newest: dict[str, int] = {}
    for origin, number in ours.items():
        newest[node_of(origin)] = max(number, newest.get(node_of(origin), 0))
    found = dict.fromkeys(newest, 0)
    for origin, number in beyond(there, ours).items():
        node = node_of(origin)
        missing = number - ours.get(origin, newest.get(node, 0))
        found[node] = found.get(node, 0) + max(1, missing)
    return found


def node_of(origin: str) -> str:
    """The node whose origin it is."""
    return origin.partition("-")[0]


def beyond(vector: Mapping[str, int], base: Mapping[str, int]) -> Vector:
    """The part of the vector that `base` does not hold."""
    return {origin: number for origin, number in vector.items() if number > base.get(origin, 0)}


def shown(versions: Versions, prefer: str = "") -> Version:
    """The version that is shown: the newest of the preferred node, if it wrote one, else that of the highest rank."""
    if prefer:
        for version in versions:
            if version.origin.startswith(prefer + "-"):
                return version
    return versions[0]


def is_seen(state: State, vector: Mapping[str, int]) -> bool:
    """Whether the vector covers every version of the record: then its owner has nothing to learn from it."""
    return all(covers(vector, version) for versions in state.fields.values() for version in versions)


def is_same_value(one: Version, other: Version) -> bool:
    """Whether they say the same: by canonical form, in which 1 and 1.0 and true are three."""
    return one.gone == other.gone and (one.gone or canonical(one.value) == canonical(other.value))


def next_stamp(last: int, unix_ms: int) -> int:
    """The stamp of a new write: the clock's milliseconds and a counter, above the last one given here.

    It never adopts what others gave: a node with a wrong clock wins or loses what is shown, and infects nobody.
    """
    return max(last + 1, unix_ms << _COUNTER_BITS)
