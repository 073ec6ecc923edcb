"""The audit trail: what was done or refused that is no line of the change log. A row's hash covers the row before."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.world import World
from universal_registry.log.chain import GENESIS


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be written down, in the transaction of what it tells of.

    `id`: unique, so that a repeated transaction adds nothing twice. `action`: `noun.verb`, as `breaker.reset`, or
    `denied`. `subject`: what it was done to, as `target system/mine`. `details`: JSON values, no secrets. `at`: RFC
    3339, UTC, milliseconds.
    """

    id: str
    at: str
    actor: str
    action: str
    subject: str = ""
    details: dict[str, Any] = {}


class AuditRow(msgspec.Struct, frozen=True):
    """A deed as it is stored. `number` counts from 1 without gaps; `details` is canonical JSON; `hash`: 32 bytes."""

    number: int
    id: str
    at: str
    actor: str
    action: str
    subject: str
    details: str
    hash: bytes


class AuditHead(msgspec.Struct, frozen=True):
    """The end of a trail: the number of its newest row (0: none) and the hash there."""

    number: int = 0
    hash: bytes = GENESIS


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows are wanted: the newest `limit` since a time (RFC 3339; empty: ever), by one actor, of one action (or
    of all actions that begin with that word and a dot)."""

    since: str = ""
    actor: str | None = None
    action: str | None = None
    limit: int = 100


class LineSeen(msgspec.Struct, frozen=True):
    """A line of the change log, as far as an audit shows it."""

    revision: int
    seq: int
    op: str
    kind: str
    namespace: str
    name: str
    actor: str
    message: str
    at: str


def deed(world: World, actor: str, action: str, subject: str = "", **details: Any) -> Deed:
    """A deed of now."""
    at = world.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Deed(id=world.new_id(), at=at, actor=actor, action=action, subject=subject, details=details)


def chained(head: AuditHead, deeds: Sequence[Deed]) -> list[AuditRow]:
    """The deeds as the rows that come after `head`."""
    rows = []
    for each in deeds:
        details = canonical(each.details).decode()
        row = AuditRow(
            number=head.number + 1,
            id=each.id,
            at=each.at,
            actor=each.actor,
            action=each.action,
            subject=each.subject,
            details=details,
            hash=b"",
        )
        row = msgspec.structs.replace(row, hash=_link(head.hash, row))
        head = AuditHead(row.number, row.hash)
        rows.append(row)
    return rows


def verify_rows(head: AuditHead, rows: Sequence[AuditRow], trail: str) -> AuditHead:
    """Check the rows that follow `head`; the head after them. Raises Corrupt naming the first that does not fit."""
    for row in rows:
        wanted = head.number + 1
        if row.number != wanted:
            raise Corrupt(f"{trail}: row {wanted} is missing (found {row.number})", trail=trail, row=wanted)
        if row.hash != _link(head.hash, row):
            raise Corrupt(f"{trail}: row {wanted} was altered: its hash does not fit", trail=trail, row=wanted)
        head = AuditHead(row.number, row.hash)
    return head


def _link(previous: bytes, row: AuditRow) -> bytes:
    fields = [row.number, row.id, row.at, row.actor, row.action, row.subject, row.details]
    return sha256(previous + canonical(fields)).digest()
