"""The signing secret and the sealing key of a target: shown to administrators, rotated with an overlap, dropped after.

While the overlap of a secret lasts, both sign. While that of a sealing key lasts, the one before goes on sealing. So a
receiver that is given the new one within that time misses nothing.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Any

from universal_registry.kernel.errors import Forbidden, Invalid, NotFound, PreconditionFailed
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.routing.target import KIND, Target
from universal_registry.propagation.routing.topology import read_target
from universal_registry.propagation.verbs import documents
from universal_registry.propagation.views.plain import moment_text
from universal_registry.registry.once import Once
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.registry.words import shown
from universal_registry.security.ed25519 import public_jwk, public_text
from universal_registry.security.signing import new_secret
from universal_registry.security.wire import new_wire_key, parse_wire_key, wire_jwk, wire_kid

LONGEST_OVERLAP = timedelta(days=90)
DROPPER = Actor("daemon", admin=True)


_OVERLAP = re.compile(r"([0-9]{1,7})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_overlap(text: str) -> timedelta:
    """How long, as `24h`, `90m`, `7d` or `0s`. Raises Invalid."""
    match = _OVERLAP.fullmatch(text)
    overlap = timedelta(seconds=int(match[1]) * _SECONDS[match[2]]) if match else None
    if overlap is None or overlap > LONGEST_OVERLAP:
        hint = f"a number and s, m, h or d, at most {LONGEST_OVERLAP.days}d"
        raise Invalid(f"overlap {shown(text)} is not understood", hint=hint, path="overlap")
    return overlap


class KeyField(StrEnum):
    """The field of `spec.delivery`; the one before and its end stand beside it."""

    SECRET = "secret"  # noqa: S105 - a name, no secret
    SEAL_KEY = "seal_key"

    @property
    def previous(self) -> str:
        return f"previous_{self.value}"

    @property
    def until(self) -> str:
        return f"previous_{self.value}_until"


def show_key(service: RegistryService, record: Record, field: KeyField, actor: Actor) -> dict[str, Any]:
    """The secret or key in clear, with the one before while it counts. Raises Forbidden; NotFound if there is none."""
    if not actor.admin:
        raise Forbidden(f"{actor.name} may not read the keys of targets", hint="only the administrator may")
    target = _target(service, record)
    value, previous, until = _values(target, field)
    if value is None:
        verb = "secret" if field is KeyField.SECRET else "key"
        raise NotFound(f"target {target.name} has no {field.replace('_', ' ')}", hint=f"ureg target {verb} rotate NAME")
    overlap = until is not None and service.world.now() < until
    answer: dict[str, Any] = {"target": target.address, field.value: value}
    if overlap:
        answer |= {field.previous: previous, field.until: moment_text(until)}
    if field is KeyField.SEAL_KEY:
        key = parse_wire_key(value)
        return {**answer, "kid": wire_kid(key), "jwk": wire_jwk(key), "seal": target.seal.value}
    return {**answer, "signing": target.signing.value, "public_key": public_text(service.signing_key.public)}


async def rotate_key(
    service: RegistryService,
    record: Record,
    field: KeyField,
    overlap: timedelta,
    *,
    actor: Actor,
    once: Once | None = None,
) -> dict[str, Any]:
    """Put a new secret or key in the place of the old one, which counts for `overlap` more (not negative).

    Raises PreconditionFailed when another changed the target meanwhile: the caller looks again.
    """
    target = _target(service, record)
    old, older, until = _values(target, field)
    now = service.world.now()
    new = new_secret(service.world) if field is KeyField.SECRET else new_wire_key(service.world)
    ends = moment_text(now + overlap) if old and overlap else None
    change = {field.value: new, field.previous: old if ends else None, field.until: ends}
    cut = older is not None and until is not None and now < until
    document = documents.guarded(documents.target_document(target.name, url=None, delivery=change), record)

    def answer(written: Written) -> dict[str, Any]:
        warnings = [f"the {field.replace('_', ' ')} before the last counts no more"] if cut else []
        return {
            "target": target.address,
            "revision": written.revision,
            field.value: new,
            field.until: ends,
            "warnings": [*warnings, *written.warnings],
        }

    message = f"target {'secret' if field is KeyField.SECRET else 'key'} rotate {target.name}"[:200]
    return answer(await service.batch([document], actor=actor, message=message, once=once and once.of(answer)))


async def drop_ended(service: RegistryService) -> list[str]:
    """Remove for good the secrets and keys whose overlap is over; the names of the targets that had some.

    It is a change like any other, which history shows. Another daemon may be first: then nothing is left to do.
    """
    now = moment_text(service.world.now()) or ""
    dropped = []
    async for page in service.pages(Selector(kinds=(KIND,), namespaces=(SYSTEM_NAMESPACE,))):
        for record in page.records:
            ended = _ended(service, record, now)
            if ended and await _drop(service, record, ended):
                dropped.append(record.name)
    return dropped


def _ended(service: RegistryService, record: Record, now: str) -> dict[str, Any]:
    delivery = record.spec.get("delivery")
    if not isinstance(delivery, dict) or not any(field.until in delivery for field in KeyField):
        return {}
    target = read_target(service, record)
    ended: dict[str, Any] = {}
    for field in KeyField:
        until = None if target is None else _values(target, field)[2]
        if until is not None and (moment_text(until) or "") <= now:
            ended |= {field.previous: None, field.until: None}
    return ended


async def _drop(service: RegistryService, record: Record, ended: dict[str, Any]) -> bool:
    document = documents.guarded(documents.target_document(record.name, url=None, delivery=ended), record)
    message = f"target {record.name}: the overlap is over"[:200]
    try:
        await service.batch([document], actor=DROPPER, message=message)
    except PreconditionFailed:
        return False
    return True


def public_keys(service: RegistryService) -> dict[str, Any]:
    """The key set (JWKS) with which receivers check v1a signatures of this registry."""
    return {"keys": [public_jwk(service.signing_key.public)]}


def _values(target: Target, field: KeyField) -> tuple[str | None, str | None, Any]:
    if field is KeyField.SECRET:
        return target.secret, target.previous_secret, target.previous_secret_until
    return target.seal_key, target.previous_seal_key, target.previous_seal_key_until


def _target(service: RegistryService, record: Record) -> Target:
    target = read_target(service, record)
    if target is None:
        raise NotFound(f"{record.name!r:.80} is no target any more")
    return target
