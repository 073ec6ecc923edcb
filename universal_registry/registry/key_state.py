"""What a store knows of its keys, and what is needed of a store and of a home for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from universal_registry.log.audit import Deed
from universal_registry.security.keyring import Keyring

FIRST = "first"
"""The place where a pass over all that is sealed begins."""


class KeyState(StrEnum):
    """What a key is to a store. NEXT: announced, seals nothing yet. OLD: opens only. RETIRED: had nothing to open."""

    NEXT = "next"
    PRIMARY = "primary"
    OLD = "old"
    RETIRED = "retired"


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key as a store knows it. `wrapped`: the key itself, sealed with the one before it, until that is retired.
    Times: RFC 3339, UTC."""

    kid: str
    fingerprint: str
    state: KeyState
    created_at: str
    retired_at: str | None = None
    wrapped: str | None = None


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation under way to key `kid`. `place`: where it is (empty: announced), `after`: how far there.

    `by` and `at`: which daemon works at it, and when it last did. `resealed`: rows so far; `changed`: in this pass.
    """

    kid: str
    began_at: str
    by: str
    at: str
    place: str = ""
    after: str = ""
    resealed: int = 0
    changed: int = 0


class Keys(NamedTuple):
    """The keys that a store knows, and the rotation under way."""

    rows: Sequence[KeyRow]
    rotation: Rotation | None

    def row(self, kid: str) -> KeyRow | None:
        """The row of a key."""
        return next((row for row in self.rows if row.kid == kid), None)


class KeyStore(Protocol):
    """The keys of a store, and what was sealed with them. `told` is written down in the same transaction."""

    async def keys(self) -> Keys: ...

    async def begin(self, row: KeyRow, rotation: Rotation, told: Deed) -> bool:
        """Announce a key. False: a rotation is under way already."""
        ...

    async def promote(
        self, rotation: Rotation, rows: tuple[KeyRow, KeyRow], facts: Mapping[str, str], told: Deed
    ) -> None:
        """Record all at once: the two rows (the new primary, and the one before), the rotation, the facts."""
        ...

    async def claim(self, rotation: Rotation, between: tuple[str, str]) -> bool:
        """Make the rotation's `by` and `at` those of the row: if they are its owner's, or its `at` lies not between."""
        ...

    async def reseal(self, rotation: Rotation, limit: int, anew: Callable[[str, str], str]) -> Rotation | None:
        """Seal about `limit` values anew at the rotation's place, and record how far it is, in one transaction.

        `anew(form, text)`: the text with its seals made anew. `form`: `document` (a record, or a line of the log about
        one), `event` (the body of an event) or `value` (nothing but a sealed value). None: all places are through.
        """
        ...

    async def save(self, rotation: Rotation | None, told: Deed | None = None) -> None:
        """Record the rotation; None: it is done."""
        ...

    async def uses(self, kids: Sequence[str]) -> Mapping[str, int]:
        """How many rows hold a value sealed with each of the keys."""
        ...

    async def retire(self, row: KeyRow, told: Deed) -> int:
        """If nothing is sealed with this key any more, record its row: 0. Else change nothing: how many rows are left.

        Count and mark are one transaction, and no line sealed with a retired key is taken from then on.
        """
        ...


class Facts(Protocol):
    """Facts about the store, by name."""

    def meta(self, key: str) -> str | None: ...

    async def claim_meta(self, facts: Mapping[str, str]) -> None: ...


class Files(Protocol):
    """The key files of this home."""

    @property
    def read_only(self) -> bool: ...

    def load(self, *, may_create: bool = False, expected: str | None = None) -> Keyring: ...

    def keep(self, key: bytes) -> None: ...

    def make_primary(self, key: bytes) -> None: ...

    def drop(self, kid: str) -> None: ...
