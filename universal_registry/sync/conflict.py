"""What is to be looked at by a person: concurrent values of one field, and edits of a record that was deleted. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from universal_registry.sync.paths import is_alive, is_plain, shown_leaves
from universal_registry.sync.version import LIFE, State, Version, Versions, is_same_value, shown

MANUAL, NEWEST, PREFER = "manual", "newest", "prefer-node:"
"""Policies of a kind. `manual`: every conflict is listed until somebody settles it. The others only list what no rule
decides: `newest` takes what is shown anyway, `prefer-node:<node>` what that node wrote, if it did."""


class Sort(StrEnum):
    """VALUE: one field has several values. LIFE: deleted here, made again there. SHAPE: a value stands where another
    node put an object. ORPHAN: a field of a deleted record was edited meanwhile."""

    VALUE = "value"
    LIFE = "life"
    SHAPE = "shape"
    ORPHAN = "orphan"


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """One field with something to choose. `shown`: None when nothing is; `losers`: the other values, best first."""

    path: str
    sort: Sort
    shown: Version | None
    losers: Versions


def preferred_node(policy: str) -> str:
    """The node whose versions are shown under this policy; empty: the highest rank decides."""
    return policy.removeprefix(PREFER) if policy.startswith(PREFER) else ""


def conflicts_of(state: State, policy: str = MANUAL) -> list[Conflict]:
    """What of the record is to be looked at, in order of path. Versions of equal values are one value."""
    if is_plain(state):
        return []
    prefer = preferred_node(policy)
    alive, leaves = is_alive(state, prefer), shown_leaves(state, prefer)
    found = []
    for path, versions in sorted(state.fields.items()):
        top = shown(versions, prefer)
        losers = _losers(top, versions)
        if path != LIFE and not alive:
            values = (top, *losers) if not top.gone else losers
            if values:
                found.append(Conflict(path=path, sort=Sort.ORPHAN, shown=None, losers=values))
        elif policy != MANUAL:
            continue
        elif path != LIFE and not top.gone and path not in leaves and top.value not in ({}, []):
            found.append(Conflict(path=path, sort=Sort.SHAPE, shown=None, losers=(top, *losers)))
        elif losers:
            sort = Sort.LIFE if path == LIFE else Sort.VALUE
            found.append(Conflict(path=path, sort=sort, shown=top, losers=losers))
    return found


def _losers(top: Version, versions: Versions) -> Versions:
    losers: list[Version] = []
    for version in versions:
        if not any(is_same_value(version, other) for other in (top, *losers)):
            losers.append(version)
    return tuple(losers)
