"""What links need of the store of versions, and what the records say of peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from universal_registry.kernel.errors import Invalid, NotFound
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.registry.selector import Selector
from universal_registry.sync.conflict import Conflict
from universal_registry.sync.identity import Identity
from universal_registry.sync.pairing import Invited, Paired
from universal_registry.sync.ports import Peer, SyncStore
from universal_registry.sync.version import Version


class Replica(SyncStore, Protocol):
    """The store of versions, with what links need beside sessions."""

    def selector(self, scope: str) -> Selector:
        """The scope as a selector. Raises Invalid."""
        ...

    async def enable(self, cluster: str, tracked: tuple[str, ...]) -> Identity:
        """Be a node that keeps versions of these scopes. Raises Conflict, Invalid."""
        ...

    async def audience(self, scope: str, members: Sequence[str], actor: str) -> Identity:
        """Only these nodes may have the records of the scope from now on; none: all may. Audited. Raises NotFound,
        Invalid."""
        ...

    def to_and_fro(self) -> dict[Key, str]:
        """Records that have begun to be changed here and at a peer by turns, each with its node; told once."""
        ...

    async def peers(self) -> list[Peer]:
        """All peers that anything is kept of."""
        ...

    async def forget_peer(self, node: str) -> None:
        """Wait for this peer no more."""
        ...


class Reviews(Protocol):
    """What people do about conflicts."""

    async def reviews(self, limit: int, after: Key | None = None) -> Sequence[Review]:
        """Records that somebody should look at."""
        ...

    async def keys(self, limit: int) -> Sequence[Key]:
        """Which those are, of all."""
        ...

    async def review(self, key: Key) -> Review | None:
        """One record. None: nothing is known of it."""
        ...

    async def resolve(self, key: Key, choices: Mapping[str, Version], actor: str) -> None:
        """At each path this version holds. Raises NotFound, Invalid."""
        ...

    async def policies(self, policies: Mapping[str, str]) -> Identity:
        """How conflicts are settled, by kind. Raises Invalid, NotFound."""
        ...

    async def purge(self) -> int:
        """Drop tombstones that nobody needs any more."""
        ...


class Review(Protocol):
    """A record that somebody should look at, and why its merged state does not fit (empty: it does)."""

    @property
    def key(self) -> Key: ...

    @property
    def conflicts(self) -> Sequence[Conflict]: ...

    @property
    def held(self) -> str: ...


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no link with a peer now. `code`: of a refusal that does not pass by itself, else empty."""

    reason: str
    code: str = ""
    since: str = ""


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """What the records say of peers. `faults`: by name, those that cannot be followed."""

    paired: tuple[Paired, ...] = ()
    invited: tuple[Invited, ...] = ()
    faults: dict[str, str] = {}

    def of_node(self, node: str) -> Paired | None:
        return next((each for each in self.paired if each.node == node), None)

    def named(self, name: str) -> Paired:
        """Raises NotFound."""
        found = next((each for each in self.paired if each.name == name), None)
        if found is None:
            raise NotFound(f"there is no peer {name!r:.80}", hint="`ureg peer ls` lists them")
        return found


class Tended(Protocol):
    """What is looked after together with the links."""

    async def tend(self, book: Book, identity: Identity) -> None:
        """What follows from the records of now. Raises what the store raises."""
        ...


def check_scope(replica: Replica, scope: str) -> Selector:
    """The scope of a link as a selector. Raises Invalid for one that takes in `system`, where each keeps its own."""
    selector = replica.selector(scope)
    if SYSTEM_NAMESPACE in selector.namespaces:
        raise Invalid("namespace system is not kept the same: targets, routes and peers are each registry's own")
    return selector
