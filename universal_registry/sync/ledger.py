"""What a write here, or records from a peer, make of this registry's identity and of the states it keeps. Pure.

The stores do nothing but keep what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from universal_registry.kernel.ids import Key
from universal_registry.sync.conflict import MANUAL, preferred_node
from universal_registry.sync.identity import Identity
from universal_registry.sync.merge import Writer, deleted, is_changed, merged, purged, resolved, trimmed, written
from universal_registry.sync.version import NOTHING, Known, State, Vector, Version, beyond, joined, next_stamp

KEEP_TOMBSTONES_MS = 30 * 24 * 3600 * 1000
_COUNTER_BITS = 16


class Entry(NamedTuple):
    """A state, and the position in the feed at which it was given."""

    state: State
    position: int


class Outcome(NamedTuple):
    """The identity after it, and the entries that are other ones now."""

    identity: Identity
    entries: dict[Key, Entry]


class Swept(NamedTuple):
    """The identity with its floor, and the states without tombstones; those of no fields are to be forgotten."""

    identity: Identity
    entries: dict[Key, Entry]


def policy_of(identity: Identity, kind: str) -> str:
    """The policy for conflicts of a kind; that of `*` for kinds which have none of their own."""
    return identity.policies.get(kind, identity.policies.get("*", MANUAL))


def note(identity: Identity, key: Key, state: State, leaves: Mapping[str, Any] | None, unix_ms: int) -> Outcome:
    """Somebody made the record exactly these leaves, or deleted it (None). No entry if its state says so already."""
    writer = _next_writer(identity, unix_ms)
    prefer = preferred_node(policy_of(identity, key.kind))
    after = deleted(state, writer) if leaves is None else written(state, leaves, writer, prefer)
    return _entered(identity, key, state, after, writer)


def settle(identity: Identity, key: Key, state: State, choices: Mapping[str, Version], unix_ms: int) -> Outcome:
    """Somebody settled conflicts of the record."""
    writer = _next_writer(identity, unix_ms)
    return _entered(identity, key, state, resolved(state, choices, writer), writer)


def _next_writer(identity: Identity, unix_ms: int) -> Writer:
    return Writer(identity.origin, identity.feed + 1, next_stamp(identity.stamp, unix_ms))


def _entered(identity: Identity, key: Key, before: State, after: State, writer: Writer) -> Outcome:
    if not is_changed(before, after):
        return Outcome(identity, {})
    vector = {**identity.vector, identity.origin: writer.number}
    identity = replace(identity, feed=writer.number, stamp=writer.stamp, vector=vector)
    return Outcome(identity, {key: Entry(trimmed(after, vector), writer.number)})


def take(
    identity: Identity, states: Mapping[Key, State], records: Sequence[Known], vector: Vector, *, joins: bool
) -> Outcome:
    """Records came, each whole, from a registry that had seen `vector`. `joins`: that was the end of its feed, of all
    that we keep: so its vector becomes part of ours. Not before: what is still to come would count as seen."""
    before, feed = identity.vector, identity.feed
    after = joined(before, vector) if joins else before
    entries: dict[Key, Entry] = {}
    news = beyond(vector, before)
    for key, incoming in records:
        local = entries[key].state if key in entries else states.get(key, NOTHING)
        made = merged(local, before, incoming, vector, news)
        if is_changed(local, made):
            feed += 1
            entries[key] = Entry(trimmed(made, after), feed)
    return Outcome(replace(identity, feed=feed, vector=after), entries)


def sweep(identity: Identity, entries: Iterable[tuple[Key, Entry]], acked: int | None, unix_ms: int) -> Swept:
    """Tombstones away that every peer has acknowledged (up to position `acked`; None: there is no peer), or that are
    older than 30 days. A peer below the floor is compared by digests, so that nobody can bring them back."""
    floor, kept = identity.floor, {}
    for key, (state, position) in entries:
        if acked is not None and position > acked and not _is_old(state, unix_ms):
            continue
        made = purged(state, identity.vector)
        if is_changed(state, made):
            kept[key] = Entry(made, position)
            floor = max(floor, position)
    return Swept(replace(identity, floor=floor), kept)


def _is_old(state: State, unix_ms: int) -> bool:
    newest = max((version.stamp for versions in state.fields.values() for version in versions), default=0)
    return (newest >> _COUNTER_BITS) < unix_ms - KEEP_TOMBSTONES_MS


def tombstones_in(state: State) -> int:
    """How many registers hold nothing but removals."""
    return sum(all(version.gone for version in versions) for versions in state.fields.values())
