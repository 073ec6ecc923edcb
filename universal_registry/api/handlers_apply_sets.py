"""Applying files as a set: what the set had made before, and the files hold no more, can be deleted with it."""

from __future__ import annotations

import msgspec

from universal_registry.api.context import Call, Context
from universal_registry.api.documents import written_many
from universal_registry.api.handlers_records import documents_to_apply
from universal_registry.api.handlers_reverting import foretold_answer
from universal_registry.api.http import Response
from universal_registry.kernel.errors import PreconditionFailed
from universal_registry.kernel.ids import Key
from universal_registry.registry.apply_set import SETS, ApplySet, Planned, check_set_name, key_of, parse_set, plan
from universal_registry.registry.drafts import Document
from universal_registry.registry.operation import Delete
from universal_registry.registry.rehearsal import rehearse
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.registry.tokens import TokenScope, check_may_write

_TRIES = 3


async def apply_as_set(context: Context, call: Call) -> Response:
    """Make all records what the documents say, and remember them as a set, in one revision. `prune` deletes what the
    set had and the documents do not mention; `dry_run` only says what would change."""
    name = check_set_name(call.params["name"])
    documents = await documents_to_apply(call)
    strict = call.request.flag("strict")
    operations, _ = context.service.operations.read_all(documents, strict)
    check_may_write(call.who, operations)
    keys = {each.key for each in operations}
    for tries_left in reversed(range(_TRIES)):
        planned = await _planned(context.service, call, name, documents, keys)
        try:
            return await _done(context, call, planned, strict=strict)
        except PreconditionFailed:  # somebody was quicker: look again
            if not tries_left:
                raise
    raise AssertionError  # the last try returns or raises


async def _planned(
    service: RegistryService, call: Call, name: str, documents: list[Document], keys: set[Key]
) -> Planned:
    record = await service.records.get(key_of(name))
    own = parse_set(record) if record else ApplySet(name=name)
    there = {key: record for key in own.members | keys if (record := await service.records.get(key))}
    if not call.request.flag("prune"):
        return plan(documents, keys, own, (), there, prune=False)
    check_may_write(call.who, [Delete(key=key) for key in own.members.difference(keys)])
    found = [each async for page in service.pages(SETS) for each in page.records]
    others = [parse_set(each) for each in found if each.key != key_of(name)]
    return plan(documents, keys, own, others, there, prune=True)


async def _done(context: Context, call: Call, planned: Planned, *, strict: bool) -> Response:
    actor = _who_may_keep_sets(call.who)
    if call.request.flag("dry_run"):
        found = await rehearse(context.service, planned.operations, actor=actor, strict=strict)
        told = msgspec.structs.replace(found, each=found.each[:-1], warnings=(*found.warnings, *planned.told))
        return foretold_answer(context, told)

    def answer(written: Written) -> Response:
        warnings = (*written.warnings, *planned.told)
        return written_many(msgspec.structs.replace(written, results=written.results[:-1], warnings=warnings))

    written = await context.service.batch(
        planned.operations,
        actor=actor,
        message=call.request.value("message"),
        strict=strict,
        once=call.once_as(answer),
    )
    return answer(written)


def _who_may_keep_sets(who: Actor) -> Actor:
    """Whoever may write the records may have it remembered which they were, though that stands in `system`."""
    return msgspec.structs.replace(who, scopes=who.scopes | {TokenScope.PROPAGATE})
