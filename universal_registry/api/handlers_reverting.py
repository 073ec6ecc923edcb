"""Looking ahead and going back: what a batch would change, undo of a revision, a record as it was."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.api.context import BULK_LIMITS, Call, Context, body_as
from universal_registry.api.documents import written_many
from universal_registry.api.handlers_records import BatchBody
from universal_registry.api.http import Response, json_response
from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import DEFAULT_NAMESPACE
from universal_registry.registry.drafts import Document
from universal_registry.registry.record import Record, document
from universal_registry.registry.rehearsal import Foretold, Rehearsed, rehearse
from universal_registry.registry.reverting import rollback, undelete, undo


class UndoBody(msgspec.Struct, forbid_unknown_fields=True):
    """All of one revision. `dry_run`: only say what it would change."""

    revision: int
    message: str = ""
    dry_run: bool = False


class RollbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """A record, and the revision that it goes back to; without it, a deleted record as it last was."""

    kind: str
    name: str
    namespace: str = DEFAULT_NAMESPACE
    to: int | None = None
    message: str = ""
    dry_run: bool = False


async def rehearsal(context: Context, call: Call) -> Response:
    """What a batch would change. Nothing is stored, and no revision made."""
    body = await body_as(BatchBody, call, limits=BULK_LIMITS)
    return await _foretold(context, call, body.operations, strict=body.strict)


async def undo_revision(context: Context, call: Call) -> Response:
    """Put every record of a revision back to what it was before, as one new revision; refused when one of them was
    changed since."""
    body = await body_as(UndoBody, call)
    made = await undo(context.service.records, context.service.log, body.revision)
    return await _done(context, call, made, body.message or f"undo of revision {body.revision}", dry_run=body.dry_run)


async def roll_back(context: Context, call: Call) -> Response:
    """Make a record what it was at a revision, or bring a deleted one back, as a new revision."""
    body = await body_as(RollbackBody, call)
    service = context.service
    key = service.key(body.kind, body.namespace, body.name)
    if body.to is None:
        made, why = await undelete(service.records, service.log, key), "undelete"
    else:
        if body.to < 1:
            raise Invalid(f"to is {body.to}", hint="a revision, as `ureg history` shows them", path="to")
        made, why = await rollback(service.records, service.log, key, body.to), f"back to revision {body.to}"
    return await _done(context, call, made, body.message or why, dry_run=body.dry_run)


async def _done(context: Context, call: Call, made: list[Document], message: str, *, dry_run: bool) -> Response:
    if dry_run:
        return await _foretold(context, call, made)
    written = await context.service.batch(made, actor=call.who, message=message, once=call.once_as(written_many))
    return written_many(written)


async def _foretold(context: Context, call: Call, operations: list[Document], *, strict: bool = False) -> Response:
    return foretold_answer(context, await rehearse(context.service, operations, actor=call.who, strict=strict))


def foretold_answer(context: Context, found: Rehearsed) -> Response:
    """What a rehearsal came to."""
    results = [_result(context, each) for each in found.each]
    return json_response({"revision": found.revision, "results": results, "warnings": list(found.warnings)})


def _result(context: Context, each: Foretold) -> dict[str, Any]:
    return {
        **each.result.key._asdict(),
        "effect": each.result.effect,
        "changed": list(each.changed),
        "before": _shown(context, each.before),
        "after": _shown(context, each.after),
    }


def _shown(context: Context, record: Record | None) -> dict[str, Any] | None:
    return None if record is None else document(context.service.shown(record), meta=False)
