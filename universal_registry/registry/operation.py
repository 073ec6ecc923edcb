"""What a caller may ask of the writer, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change
from universal_registry.log.cursor import Cursor
from universal_registry.registry.once import Kept
from universal_registry.registry.patch import Step
from universal_registry.registry.record import Content, Record


class Put(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Make the record exactly this. `if_revision`: only when its revision is this one (0: only when there is none)."""

    key: Key
    content: Content
    fresh_uid: str
    if_revision: int | None = None


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """Create the record, or merge into it (RFC 7386: null removes). `fields` holds only the content fields given.

    Only the writer sees what comes of it, so there it is validated; `strict` refuses undeclared fields of the spec.
    """

    key: Key
    fields: dict[str, Any]
    default_classification: str
    fresh_uid: str
    strict: bool = False
    if_revision: int | None = None


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """Change the record step by step (RFC 6902). Raises NotFound when there is none. Secrets in `steps` are sealed."""

    key: Key
    steps: tuple[Step, ...]
    strict: bool = False
    if_revision: int | None = None


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """Remove the record. Raises NotFound when there is none, unless `missing_ok`."""

    key: Key
    if_revision: int | None = None
    missing_ok: bool = False


class Emit(msgspec.Struct, frozen=True, kw_only=True):
    """Write an event line: `body` is canonical JSON with the payload sealed, `commitment` a keyed digest of it."""

    key: Key
    event_uid: str
    body: bytes
    commitment: str


Operation = Put | Merge | Patch | Delete | Emit


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The idempotency key of a request, whose it is, and what was asked. `answer` makes the sealed answer to keep."""

    key: str
    actor: str
    fingerprint: str
    answer: Callable[[Committed], str]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Operations that become one revision, all or nothing. `at` is when it was asked (RFC 3339 UTC, ms)."""

    operations: tuple[Operation, ...]
    actor: str
    txn_id: str
    at: str
    message: str = ""
    once: Asked | None = None


class Effect(StrEnum):
    """What became of one operation."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    EMITTED = "emitted"


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of one operation; `record` is the record after it (the last one, when it was deleted)."""

    key: Key
    effect: Effect
    record: Record | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What `decide` made of a request: the lines to write (none when nothing changes), the records that they change
    (None: removed), and a result per operation."""

    changes: tuple[Change, ...]
    records: dict[Key, Record | None]
    results: tuple[Result, ...]


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request, after the fsync. `revision` is the one it made or, when nothing changed, the head's.

    `kept`: what was answered to the same key before; then nothing was done now, and `results` are empty.
    """

    revision: int
    cursor: Cursor
    results: tuple[Result, ...]
    kept: Kept | None = None
