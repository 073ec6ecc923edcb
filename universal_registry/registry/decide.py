"""The decision: what a request makes of the records it touches. Pure: no clock, no chance, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid, NotFound, PreconditionFailed
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change, Op
from universal_registry.registry.catalogue import Catalogue, Kind
from universal_registry.registry.drafts import check_field, refuse_marks
from universal_registry.registry.operation import (
    Decision,
    Delete,
    Effect,
    Emit,
    Merge,
    Operation,
    Patch,
    Put,
    Request,
    Result,
)
from universal_registry.registry.patch import apply_patch
from universal_registry.registry.record import (
    CONTENT_FIELDS,
    Content,
    Record,
    content_values,
    encode_record,
    fingerprint,
)
from universal_registry.registry.validate import validate_spec
from universal_registry.security.cipher import KEPT, SecretPath, is_sealed

Heads = Mapping[Key, Record | None]


def decide(heads: Heads, request: Request, revision: int, catalogue: Catalogue) -> Decision:
    """What `request` changes, as `revision`, given the current records of all keys it touches.

    Raises PreconditionFailed, NotFound or Invalid, and then nothing of the request is done.
    """
    deciding = _Deciding(heads, request, revision, catalogue)
    for operation in request.operations:
        deciding.add(operation)
    return Decision(changes=tuple(deciding.changes), records=deciding.records, results=tuple(deciding.results))


def touched_keys(request: Request) -> list[Key]:
    """The keys whose heads `decide` needs."""
    return [operation.key for operation in request.operations if not isinstance(operation, Emit)]


class _Deciding:
    """One request under way: later operations see what earlier ones made."""

    def __init__(self, heads: Heads, request: Request, revision: int, catalogue: Catalogue) -> None:
        self._heads = heads
        self._catalogue = catalogue
        self._seen: set[Key] = set()
        self._request = request
        self._revision = revision
        self.changes: list[Change] = []
        self.records: dict[Key, Record | None] = {}
        self.results: list[Result] = []

    def add(self, operation: Operation) -> None:
        if isinstance(operation, Emit):
            self._emit(operation)
            return
        if operation.key in self._seen:
            raise Invalid(f"{operation.key} appears twice in one request", hint="send one operation per record")
        self._seen.add(operation.key)
        old = self._heads.get(operation.key)
        _check_revision(operation, old)
        match operation:
            case Put():
                content = resolve_kept(operation.content, old, operation.key)
                self._write(operation.key, content, operation.fresh_uid, old)
            case Merge():
                content = resolve_kept(_merged(operation, old), old, operation.key)
                self._validate(operation, content)
                self._write(operation.key, content, operation.fresh_uid, old)
            case Patch():
                if old is None:
                    raise _missing(operation.key)
                patched = _patched(operation, old, self._catalogue.kinds[operation.key.kind])
                content = resolve_kept(patched, old, operation.key)
                self._validate(operation, content)
                self._write(operation.key, content, old.uid, old)
            case Delete():
                self._delete(operation, old)

    def _validate(self, operation: Merge | Patch, content: Content) -> None:
        kind = self._catalogue.kinds[operation.key.kind]
        validate_spec(kind, content.classification, content.spec, strict=operation.strict)

    def _write(self, key: Key, content: Content, fresh_uid: str, old: Record | None) -> None:
        print_ = fingerprint(content)
        if old is not None and old.fingerprint == print_:
            self.results.append(Result(key=key, effect=Effect.UNCHANGED, record=old))
            return
        request = self._request
        record = Record(
            classification=content.classification,
            title=content.title,
            description=content.description,
            labels=content.labels,
            annotations=content.annotations,
            spec=content.spec,
            lifecycle=content.lifecycle,
            health=content.health,
            expires_at=content.expires_at,
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            uid=old.uid if old else fresh_uid,
            generation=old.generation + 1 if old else 1,
            revision=self._revision,
            created_revision=old.created_revision if old else self._revision,
            created_at=old.created_at if old else request.at,
            updated_at=request.at,
            created_by=old.created_by if old else request.actor,
            updated_by=request.actor,
            fingerprint=print_,
        )
        self.records[key] = record
        self._line(Op.PUT, record, changed_fields(old, content), old)
        self.results.append(Result(key=key, effect=Effect.UPDATED if old else Effect.CREATED, record=record))

    def _delete(self, operation: Delete, old: Record | None) -> None:
        if old is None:
            if not operation.missing_ok:
                raise _missing(operation.key)
            self.results.append(Result(key=operation.key, effect=Effect.UNCHANGED))
            return
        self.records[operation.key] = None
        self._line(Op.DELETE, old, (), old)
        self.results.append(Result(key=operation.key, effect=Effect.DELETED, record=old))

    def _line(self, op: Op, record: Record, changed: tuple[str, ...], old: Record | None) -> None:
        request = self._request
        deleted = op is Op.DELETE
        self.changes.append(
            Change(
                revision=self._revision,
                seq=len(self.changes),
                op=op,
                kind=record.kind,
                namespace=record.namespace,
                name=record.name,
                uid=record.uid,
                generation=record.generation + 1 if deleted else record.generation,
                body=encode_record(record),
                commitment=record.fingerprint,
                prev_commitment=old.fingerprint if old else None,
                changed_fields=changed,
                actor=request.actor,
                txn_id=request.txn_id,
                message=request.message,
                at=request.at,
            )
        )

    def _emit(self, operation: Emit) -> None:
        request, key = self._request, operation.key
        self.changes.append(
            Change(
                revision=self._revision,
                seq=len(self.changes),
                op=Op.EVENT,
                kind=key.kind,
                namespace=key.namespace,
                name=key.name,
                uid=operation.event_uid,
                generation=0,
                body=operation.body,
                commitment=operation.commitment,
                actor=request.actor,
                txn_id=request.txn_id,
                message=request.message,
                at=request.at,
            )
        )
        self.results.append(Result(key=key, effect=Effect.EMITTED))


def _missing(key: Key) -> NotFound:
    return NotFound(f"there is no {key.kind} {key.name!r} in {key.namespace}")


def _check_revision(operation: Put | Merge | Patch | Delete, old: Record | None) -> None:
    wanted = operation.if_revision
    actual = old.revision if old else 0
    if old and wanted == 0:
        raise PreconditionFailed(
            f"{operation.key} is there already, at revision {actual}",
            hint=f"`ureg set {old.key.kind} NAME FIELD=VALUE` changes it",
            revision=actual,
        )
    if wanted is not None and wanted != actual:
        found = f"is at revision {actual}" if old else "does not exist"
        raise PreconditionFailed(
            f"{operation.key} {found}, not at revision {wanted}",
            hint="read it again, then repeat the change",
            revision=actual,
        )


def _merged(operation: Merge, old: Record | None) -> Content:
    """The old content with the given fields merged in (RFC 7386), or new content of the default classification."""
    base: dict[str, Any] = {"classification": operation.default_classification}
    if old is not None:
        base = {field: getattr(old, field) for field in CONTENT_FIELDS}
    for field, value in operation.fields.items():
        if value is None:
            base.pop(field, None)
        else:
            base[field] = merge_patch(base.get(field), value)
    base.setdefault("classification", operation.default_classification)
    return Content(**base)


def _patched(operation: Patch, old: Record, kind: Kind) -> Content:
    """The content after the steps of a JSON patch, which see secrets as readers do."""
    fields = {field: getattr(old, field) for field in CONTENT_FIELDS}
    document = {name: value for name, value in fields.items() if value is not None}
    identity = {**old.key._asdict(), "meta": {"revision": old.revision, "generation": old.generation}}
    after = apply_patch({**identity, **document}, operation.steps, as_seen=_as_seen)
    made = {field: check_field(field, after[field], partial=False) for field in CONTENT_FIELDS if field in after}
    for field in ("title", "description", "labels", "annotations", "spec", "lifecycle", "classification"):
        if field in made and made[field] is None:
            raise Invalid(f"/{field} is null", hint="a step with the op remove takes it away", path=field)
    content = Content(**{"classification": kind.classifications[0].name, **made})
    refuse_marks(content.spec, kind.secret_paths, ())
    _check_sealed(content.spec, kind.secret_paths)
    return content


def _as_seen(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(KEPT) if is_sealed(value) else {name: _as_seen(item) for name, item in value.items()}
    return [_as_seen(item) for item in value] if isinstance(value, list) else value


def _check_sealed(spec: dict[str, Any], paths: tuple[SecretPath, ...]) -> None:
    """What was copied or moved to the place of a secret is not sealed, and must not be stored so."""
    for path in paths:
        value: Any = spec
        for name in path:
            value = value.get(name, KEPT) if isinstance(value, dict) else KEPT
        if value != KEPT and not is_sealed(value):
            where = ".".join(("spec", *path))
            raise Invalid(f"{where} is a secret: it cannot be copied or moved there", hint="send it itself", path=where)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386. A sealed or kept secret in the patch replaces as a whole."""
    if not isinstance(patch, dict) or "$sealed" in patch or "$secret" in patch:
        return patch
    merged = dict(target) if isinstance(target, dict) and "$sealed" not in target else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def resolve_kept(content: Content, old: Record | None, key: Key) -> Content:
    """Each `{"$secret": "kept"}` replaced by the sealed value that the record has there. Raises Invalid without one."""
    spec = _resolve(content.spec, old.spec if old else None, key, "spec")
    return content if spec is content.spec else msgspec.structs.replace(content, spec=spec)


def _resolve(value: Any, old: Any, key: Key, path: str) -> Any:
    if not isinstance(value, dict):
        return value
    if "$secret" in value:
        if isinstance(old, dict) and "$sealed" in old:
            return old
        raise Invalid(f"{path} of {key} says that its secret is kept, but there is none", hint="give the secret")
    resolved = value
    for name, item in value.items():
        if isinstance(item, dict):
            made = _resolve(item, old.get(name) if isinstance(old, dict) else None, key, f"{path}.{name}")
            if made is not item:
                resolved = {**resolved, name: made}
    return resolved


def changed_fields(old: Content | None, new: Content) -> tuple[str, ...]:
    """Which content fields differ; inside `spec` and `labels` one level deep, as `spec.port`. All of them when new."""
    return tuple(_given_fields(new) if old is None else _differing_fields(old, new))


def _differing_fields(old: Content, new: Content) -> list[str]:
    # One by one: for every write, and a loop over their names takes half as long again.
    changed: list[str] = []
    if old.classification != new.classification:
        changed.append("classification")
    if old.title != new.title:
        changed.append("title")
    if old.description != new.description:
        changed.append("description")
    if old.labels != new.labels:
        changed += _changed_members("labels", old.labels, new.labels)
    if old.annotations != new.annotations:
        changed.append("annotations")
    if old.spec != new.spec:
        changed += _changed_members("spec", old.spec, new.spec)
    if old.lifecycle != new.lifecycle:
        changed.append("lifecycle")
    if old.health != new.health:
        changed.append("health")
    if old.expires_at != new.expires_at:
        changed.append("expires_at")
    return changed


def _given_fields(new: Content) -> list[str]:
    given: list[str] = []
    for field, value in zip(CONTENT_FIELDS, content_values(new), strict=True):
        if field == "spec" or field == "labels":
            given += _changed_members(field, {}, value)
        elif value:
            given.append(field)
    return given


def _changed_members(field: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = [f"{field}.{name}" for name, value in after.items() if before.get(name) != value]
    if not before.keys() <= after.keys():
        names += [f"{field}.{name}" for name, value in before.items() if name not in after and value is not None]
    names.sort()
    return names
