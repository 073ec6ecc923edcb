"""What a studio pushes, against what it had seen and what is there now: a merge by field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from universal_registry.kernel.jsonvalue import canonical

_ABSENT = object()


class Merged(NamedTuple):
    """`patch`: the merge patch (null removes) that brings the studio's changes in. `conflicts`: the fields, as dotted
    paths, that both have changed, each to another value: where there are any, nothing is to be written."""

    patch: dict[str, Any]
    conflicts: tuple[str, ...]


def three_way(base: Mapping[str, Any], theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Merged:
    """`base`: the spec as the studio last saw it; `theirs`: as it has it now; `ours`: as it is here."""
    conflicts: list[str] = []
    patch = _merge(base, theirs, ours, "", conflicts)
    return Merged(patch, tuple(conflicts))


def _merge(
    base: Mapping[str, Any], theirs: Mapping[str, Any], ours: Mapping[str, Any], path: str, conflicts: list[str]
) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for name in dict.fromkeys((*base, *theirs)):
        before, wanted, now = (each.get(name, _ABSENT) for each in (base, theirs, ours))
        where = f"{path}.{name}" if path else name
        if _same(wanted, before) or _same(wanted, now):
            continue
        if isinstance(wanted, Mapping) and isinstance(now, Mapping):
            inner = _merge(before if isinstance(before, Mapping) else {}, wanted, now, where, conflicts)
            if inner:
                patch[name] = inner
        elif _same(now, before):
            patch[name] = None if wanted is _ABSENT else wanted
        else:
            conflicts.append(where)
    return patch


def _same(one: Any, other: Any) -> bool:
    """As JSON has it: true is not 1."""
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return canonical(one) == canonical(other)
