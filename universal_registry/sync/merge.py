"""What becomes of a record when another registry's state of it arrives, or somebody writes it here. Pure.

`vector` is what this registry has seen of everything; `state.context` what it has seen of that record beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from universal_registry.sync.version import (
    LIFE,
    State,
    Vector,
    Version,
    Versions,
    beyond,
    covers,
    is_same_value,
    joined,
    shown,
)


def merged(local: State, vector: Vector, incoming: State, incoming_vector: Vector, news: Vector | None = None) -> State:
    """The record after another's state of it, whole, was taken in: commutative, associative, idempotent.

    A version survives unless one side lacks it and has seen it: then it was replaced there. `news`: what is in the
    incoming vector beyond ours, from whoever merges many records by the same two.
    """
    ours = joined(vector, local.context) if local.context else vector
    theirs = joined(incoming_vector, incoming.context) if incoming.context else incoming_vector
    fields: dict[str, Versions] = {}
    for path in local.fields.keys() | incoming.fields.keys():
        versions = _merged_register(local.fields.get(path, ()), ours, incoming.fields.get(path, ()), theirs)
        if versions:
            fields[path] = versions
    context = beyond(incoming_vector, vector) if news is None else news
    if incoming.context:
        context = joined(context, beyond(incoming.context, vector))
    return State(fields, joined(beyond(local.context, vector), context) if local.context else context)


def _merged_register(local: Versions, ours: Vector, incoming: Versions, theirs: Vector) -> Versions:
    if local == incoming:
        return local
    if not local:  # as in most records that are new here
        return in_order([version for version in incoming if not covers(ours, version)])
    here = {version.dot for version in local}
    there = {version.dot for version in incoming}
    kept = [version for version in local if version.dot in there or not covers(theirs, version)]
    new = [version for version in incoming if version.dot not in here and not covers(ours, version)]
    return in_order([*kept, *new])


def in_order(versions: list[Version]) -> Versions:
    """As a state holds them."""
    if len(versions) > 1:
        versions = sorted(versions, key=lambda version: version.rank, reverse=True)
    return tuple(versions)


def is_changed(before: State, after: State) -> bool:
    """Whether other versions are there: only then anything is stored and passed on, so that there is no echo."""
    return before.fields.keys() != after.fields.keys() or any(
        {version.dot for version in versions} != {version.dot for version in after.fields[path]}
        for path, versions in before.fields.items()
    )


def trimmed(state: State, vector: Vector) -> State:
    """Without the part of its context that the vector has come to hold."""
    if not state.context:
        return state
    context = beyond(state.context, vector)
    return state if len(context) == len(state.context) else State(state.fields, context)


class Writer:
    """Who writes here now: the dot and the stamp that all fields of one write of one record share."""

    __slots__ = ("number", "origin", "stamp")

    def __init__(self, origin: str, number: int, stamp: int) -> None:
        self.origin = origin
        self.number = number
        self.stamp = stamp

    def version(self, value: Any) -> Version:
        return Version(self.origin, self.number, self.stamp, value)

    def removal(self) -> Version:
        return Version(self.origin, self.number, self.stamp, None, gone=True)


def written(state: State, leaves: Mapping[str, Any], writer: Writer, prefer: str = "") -> State:
    """The record after somebody made it exactly these leaves: what he saw is replaced where he says otherwise.

    A field that already shows what he wrote keeps its versions, and with them the conflict if it has one. Not so in a
    record that was deleted: those are orphan edits, and a deletion elsewhere that saw them would take them from his.
    """
    life = state.fields.get(LIFE)
    is_there = life is not None and not shown(life, prefer).gone
    fields = {path: versions for path, versions in state.fields.items() if path != LIFE}
    for path, value in leaves.items():
        version = writer.version(value)
        there = fields.get(path)
        if not is_there or not there or not is_same_value(shown(there, prefer), version):
            fields[path] = (version,)
    for path, versions in fields.items():
        if path not in leaves and not all(version.gone for version in versions):
            fields[path] = (writer.removal(),)
    fields[LIFE] = life if life is not None and is_there else (writer.version(True),)
    return State(fields, state.context)


def deleted(state: State, writer: Writer) -> State:
    """The record after somebody deleted it: every version that he could see is gone. What others wrote meanwhile
    survives beside the deletion, hidden, as an orphan edit."""
    return State({LIFE: (writer.removal(),)}, state.context)


def resolved(state: State, choices: Mapping[str, Version], writer: Writer) -> State:
    """The record after somebody settled the conflicts at these paths, each for the value of a version (or its absence).

    An ordinary write: it replaces all versions there, and so ends the conflict everywhere.
    """
    fields = dict(state.fields)
    for path, choice in choices.items():
        fields[path] = (writer.removal() if choice.gone else writer.version(choice.value),)
    return State(fields, state.context)


def purged(state: State, vector: Vector) -> State:
    """Without the tombstones that nothing can bring back: alone at their path, seen, and with nothing seen beyond."""
    state = trimmed(state, vector)
    if state.context:
        return state
    kept = {path: versions for path, versions in state.fields.items() if not _is_settled(versions, vector)}
    return state if len(kept) == len(state.fields) else State(kept)


def _is_settled(versions: Versions, vector: Vector) -> bool:
    return len(versions) == 1 and versions[0].gone and covers(vector, versions[0])
