"""One line of the change log: history, audit, watch and outbox in one."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from universal_registry.kernel.ids import Key


class Op(StrEnum):
    """What a line says: a record was written, a record was removed, or a payload was sent."""

    PUT = "put"
    DELETE = "delete"
    EVENT = "event"


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A line as it is stored. Lines are ordered by (revision, seq); `seq` counts from 0 inside a revision.

    `body`: canonical JSON. PUT: the record document after the change, secrets sealed. DELETE: the document as it last
    was, so that routes can still match it. EVENT: `{"session", "audience", "payload"}`, the payload sealed. None once
    compaction has dropped it.
    `commitment`: what the chain says of the body (the record's fingerprint, or a keyed digest of an event's payload);
    it never depends on ciphertext, so that keys can rotate.
    `at`: RFC 3339, UTC, milliseconds. `hash`: the chain after this revision (32 bytes, the same on each of its lines).
    """

    revision: int
    seq: int
    op: Op
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    body: bytes | None
    commitment: str
    prev_commitment: str | None = None
    changed_fields: tuple[str, ...] = ()
    actor: str
    txn_id: str
    message: str = ""
    at: str
    hash: bytes = b""

    @property
    def key(self) -> Key:
        """The record that the line is about (for an event: its source)."""
        return Key(self.kind, self.namespace, self.name)
