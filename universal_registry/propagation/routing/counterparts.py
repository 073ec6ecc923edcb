"""The other sides of two-way sessions: what the link with each says of the records of a session. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.registry.selector import Selector, glob_regex
from universal_registry.registry.words import shell_word

_WORST_FIRST = ("partitioned", "degraded", "paused", "conflicted", "syncing", "in_sync")


class Counterpart(msgspec.Struct, frozen=True, kw_only=True):
    """A peer, by its name here. `state` and `reason`: of the link, conflicts aside. `scope`: what the link keeps the
    same, and `barred`: what not, of it; `reviewed`: the records that somebody should look at."""

    name: str
    state: str
    reason: str
    scope: Selector
    barred: tuple[Selector, ...] = ()
    reviewed: tuple[Key, ...] = ()

    def of(self, selector: Selector) -> tuple[str, str]:
        """The state of those records, and why."""
        if not is_within(selector, self.scope):
            return "degraded", f"the link with {self.name} keeps other records the same: its scope leaves these out"
        if any(is_within(selector, each) for each in self.barred):
            return "degraded", f"{self.name} and this registry are not both of their audience: ureg peer audience"
        conflicts = [key for key in self.reviewed if selector.covers(key)]
        if self.state == "in_sync" and conflicts:
            return "conflicted", f"to review: {conflicts[0]}; ureg conflict ls"
        return self.state, self.reason


Counterparts = Callable[[], Awaitable[Mapping[str, Counterpart]]]


async def nobody() -> Mapping[str, Counterpart]:
    """Where there are no peers."""
    return {}


def is_within(inner: Selector, outer: Selector) -> bool:
    """Whether all that the one may select goes by keys that the other covers. Patterns are compared as they stand."""
    kinds = not outer.kinds or (bool(inner.kinds) and set(inner.kinds) <= set(outer.kinds))
    if outer.namespaces:
        places = bool(inner.namespaces) and set(inner.namespaces) <= set(outer.namespaces)
    else:
        places = SYSTEM_NAMESPACE not in inner.namespaces
    return (
        kinds
        and places
        and (not outer.names or bool(inner.names))
        and all(_is_covered(name, outer.names) for name in inner.names)
    )


def _is_covered(name: str, globs: Sequence[str]) -> bool:
    return not globs or name in globs or any(glob_regex(glob).fullmatch(name) for glob in globs)


def side_of(address: str, selector: Selector, counterparts: Mapping[str, Counterpart]) -> dict[str, Any]:
    """One other side of a session: its state and reason."""
    name = address.removeprefix(f"{SYSTEM_NAMESPACE}/")
    found = counterparts.get(name)
    if found is None:
        return {"target": address, "state": "planned", "reason": not_paired(name)}
    state, reason = found.of(selector)
    return {"target": address, "state": state, "reason": reason}


def not_paired(name: str) -> str:
    """Why nothing is exchanged with somebody of that name, and what to do."""
    return f"no peer is called {name} yet: ureg peer invite {shell_word(name)}"


def overall(states: Sequence[str]) -> str:
    """The state of a session with these sides: the worst that there is. One that waits for all of its sides is
    planned, one that has some of them degraded."""
    if set(states) <= {"planned"}:
        return "planned"
    if "planned" in states:
        return "degraded"
    return next(each for each in _WORST_FIRST if each in states)
