"""Documents as operations for the writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import World, ids_from
from universal_registry.registry.drafts import Document, DraftReader, meta_revision
from universal_registry.registry.operation import Delete, Merge, Operation, Patch, Put
from universal_registry.registry.words import shown


class OperationReader:
    """Reads what a caller sends; new records get their uid here, since the writer has no chance of its own."""

    def __init__(self, drafts: DraftReader, world: World) -> None:
        self._drafts = drafts
        self._world = world

    def read_all(self, documents: Sequence[Document], strict: bool) -> tuple[list[Operation], list[str]]:
        """The operations of one request, and all warnings. Raises Invalid naming the place in `data["index"]`."""
        made: list[Operation] = []
        warnings: list[str] = []
        uids = ids_from(self._world.new_id(), len(documents))
        for index, document in enumerate(documents):
            try:
                operation, more = self._read(document, strict, uids[index])
            except Invalid as error:
                raise Invalid(
                    f"operation {index}: {error.message}", hint=error.hint, **{**error.data, "index": index}
                ) from None
            made.append(operation)
            warnings.extend(more)
        return made, warnings

    def _read(self, document: Any, strict: bool, fresh_uid: str) -> tuple[Operation, Sequence[str]]:
        """The operation `{"op": "put" | "merge" | "patch" | "delete", ...document}`, and warnings. Raises Invalid.

        A patch has the steps of RFC 6902 under `patch`.
        """
        if type(document) is not dict:
            raise Invalid(f"an operation is an object, not {shown(document)}")
        fields = dict(document)
        match fields.pop("op", "put"):
            case "put":
                return self._put(fields, None, strict, fresh_uid)
            case "merge":
                return self._merge(fields, None, strict, fresh_uid), ()
            case "patch":
                key, revision = self._place(fields)
                steps = self._drafts.steps(key, fields.get("patch"))
                return Patch(key=key, steps=steps, strict=strict, if_revision=revision), ()
            case "delete":
                key, revision = self._place(fields)
                return Delete(key=key, if_revision=revision), ()
            case other:
                raise Invalid(f"unknown op {shown(other)}", hint="put, merge, patch or delete", path="op")

    def _place(self, fields: Document) -> tuple[Key, int | None]:
        key = self._drafts.key(*(fields.get(name, "default") for name in ("kind", "namespace", "name")))
        return key, meta_revision(fields.get("meta"))

    def put(self, document: Document, if_revision: int | None, strict: bool) -> tuple[Put, Sequence[str]]:
        """The replacement by a document, and warnings. Raises Invalid."""
        return self._put(document, if_revision, strict, self._world.new_id())

    def merge(self, document: Document, if_revision: int | None, strict: bool) -> Merge:
        """The merge of a document. Raises Invalid."""
        return self._merge(document, if_revision, strict, self._world.new_id())

    def _put(
        self, document: Document, if_revision: int | None, strict: bool, fresh_uid: str
    ) -> tuple[Put, Sequence[str]]:
        draft = self._drafts.read(document, strict=strict)
        revision = draft.if_revision if if_revision is None else if_revision
        put = Put(key=draft.key, content=draft.content(), fresh_uid=fresh_uid, if_revision=revision)
        return put, draft.warnings

    def _merge(self, document: Document, if_revision: int | None, strict: bool, fresh_uid: str) -> Merge:
        draft = self._drafts.read(document, strict=strict, partial=True)
        return Merge(
            key=draft.key,
            fields=draft.fields,
            default_classification=draft.default_classification,
            fresh_uid=fresh_uid,
            strict=strict,
            if_revision=draft.if_revision if if_revision is None else if_revision,
        )
