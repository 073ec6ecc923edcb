"""Documents as operations for the writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.world import World
from universal_registry.registry.drafts import Document, Draft, DraftReader
from universal_registry.registry.operation import Delete, Merge, Operation, Put
from universal_registry.registry.words import shown


class OperationReader:
    """Reads what a caller sends; new records get their uid here, since the writer has no chance of its own."""

    def __init__(self, drafts: DraftReader, world: World) -> None:
        self._drafts = drafts
        self._world = world

    def read(self, document: Any, strict: bool) -> tuple[Operation, Sequence[str]]:
        """The operation `{"op": "put" | "merge" | "delete", ...document}`, and warnings. Raises Invalid."""
        if type(document) is not dict:
            raise Invalid(f"an operation is an object, not {shown(document)}")
        fields = {name: value for name, value in document.items() if name != "op"}
        match document.get("op", "put"):
            case "put":
                return self.put(fields, None, strict)
            case "merge":
                return self.merge(fields, None, strict), ()
            case "delete":
                key = self._drafts.key(*(fields.get(name, "default") for name in ("kind", "namespace", "name")))
                return Delete(key=key), ()
            case other:
                raise Invalid(f"unknown op {shown(other)}", hint="put, merge or delete", path="op")

    def put(self, document: Document, if_revision: int | None, strict: bool) -> tuple[Put, Sequence[str]]:
        """The replacement by a document, and warnings. Raises Invalid."""
        draft = self._drafts.read(document, strict=strict)
        operation = Put(
            key=draft.key,
            content=draft.content(),
            fresh_uid=self._world.new_id(),
            if_revision=_first(if_revision, draft),
        )
        return operation, draft.warnings

    def merge(self, document: Document, if_revision: int | None, strict: bool) -> Merge:
        """The merge of a document. Raises Invalid."""
        draft = self._drafts.read(document, strict=strict, partial=True)
        return Merge(
            key=draft.key,
            fields=draft.fields,
            default_classification=draft.default_classification,
            fresh_uid=self._world.new_id(),
            strict=strict,
            if_revision=_first(if_revision, draft),
        )


def _first(if_revision: int | None, draft: Draft) -> int | None:
    return draft.if_revision if if_revision is None else if_revision
