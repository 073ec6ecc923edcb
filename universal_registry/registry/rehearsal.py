"""What a request would change: decided as the writer decides it, and not stored."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from universal_registry.kernel.errors import TooLarge
from universal_registry.kernel.world import utc_text
from universal_registry.registry.decide import changed_fields, decide, touched_keys
from universal_registry.registry.drafts import Document
from universal_registry.registry.operation import Effect, Merge, Patch, Request, Result
from universal_registry.registry.record import Record
from universal_registry.registry.service import MOST_OPERATIONS, Actor, RegistryService
from universal_registry.registry.tokens import check_may_write


class Foretold(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one operation. `before` and `after`: the record, None where there is none."""

    result: Result
    before: Record | None
    after: Record | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The content fields that would differ, as `spec.port`; none when nothing changes or the record goes."""
        if self.after is None or self.result.effect is Effect.UNCHANGED:
            return ()
        return changed_fields(self.before, self.after)


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a request would come to, at the revision that it was looked at."""

    revision: int
    each: tuple[Foretold, ...]
    warnings: tuple[str, ...]


async def rehearse(
    service: RegistryService, documents: Sequence[Document], *, actor: Actor, strict: bool = False
) -> Rehearsed:
    """What `service.batch` of these would do now. Raises what it would raise."""
    if len(documents) > MOST_OPERATIONS:
        raise TooLarge(f"{len(documents)} operations", hint=f"at most {MOST_OPERATIONS} in one batch")
    operations, warnings = service.operations.read_all(documents, strict)
    check_may_write(actor, operations)
    request = Request(operations=tuple(operations), actor=actor.name, txn_id="", at=utc_text(service.world.now()))
    heads = {key: await service.records.get(key) for key in touched_keys(request)}
    head = await service.log.head()
    decision = decide(heads, request, head.revision + 1, service.catalogue)
    merged = {operation.key for operation in operations if isinstance(operation, Merge | Patch)}
    late = service.warnings_of([result for result in decision.results if result.key in merged])
    foretold = [
        Foretold(
            result=result,
            before=heads[result.key],
            after=None if result.effect is Effect.DELETED else result.record,
        )
        for result in decision.results
    ]
    return Rehearsed(revision=head.revision, each=tuple(foretold), warnings=(*warnings, *late))
