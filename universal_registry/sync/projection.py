"""What the versions of a record make of the record itself. Pure. What does not fit its kind is held, and passed on."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import Key, check_name, check_namespace
from universal_registry.registry.catalogue import Catalogue, Field, Kind
from universal_registry.registry.drafts import check_field, refuse_marks
from universal_registry.registry.operation import Delete, Put
from universal_registry.registry.record import CONTENT_FIELDS, Content, Record, content_of
from universal_registry.registry.validate import validate_spec
from universal_registry.security.cipher import redact_secrets
from universal_registry.sync.conflict import preferred_node
from universal_registry.sync.paths import Arrays, flatten, is_alive, unflatten, with_secrets_of
from universal_registry.sync.version import State


class Projected(NamedTuple):
    """What to do to the record, if anything; or why it is left as it is (`held`)."""

    operation: Put | Delete | None
    held: str = ""


@cache
def arrays_of(kind: Kind) -> Arrays:
    """How the items of the arrays of a kind are told apart, by path."""
    found: dict[str, str] = {}
    for field in kind.fields:
        _collect(field, "/spec", found)
    for each in kind.classifications:
        for field in each.fields:
            _collect(field, "/spec", found)
    return found


def _collect(field: Field, path: str, found: dict[str, str]) -> None:
    here = f"{path}/{field.name}"
    if field.merge:
        found[here] = field.merge
    for each in field.fields:
        _collect(each, here, found)


def leaves_of(catalogue: Catalogue, record: Record) -> dict[str, Any]:
    """The leaves of a record."""
    return flatten(content_of(record), arrays_of(catalogue.kinds[record.kind]))


def projected(
    catalogue: Catalogue, key: Key, state: State, here: Record | None, *, policy: str, fresh_uid: str
) -> Projected:
    """What makes the record, now as it is `here`, what its state shows."""
    kind = catalogue.kinds.get(key.kind)
    if kind is None:
        return Projected(None, f"there is no kind {key.kind} here")
    prefer = preferred_node(policy)
    if not is_alive(state, prefer):
        return Projected(Delete(key=key, missing_ok=True) if here is not None else None)
    try:
        _check_key(key)
        content = _content(kind, unflatten(state, prefer))
        if here is not None:
            content = Content(**{**_given(content), "spec": with_secrets_of(here, content.spec)})
        validate_spec(kind, content.classification, content.spec, strict=False)
    except Invalid as error:
        return Projected(None, error.message)
    return Projected(Put(key=key, content=content, fresh_uid=fresh_uid))


def _check_key(key: Key) -> None:
    if check_name(key.name) != key.name:
        raise Invalid(f"name {key.name!r} is not in normal form")
    check_namespace(key.namespace)


def _content(kind: Kind, fields: dict[str, Any]) -> Content:
    """The content, without secrets: none came, and whoever sends one in clear or sealed is not believed."""
    unknown = fields.keys() - set(CONTENT_FIELDS)
    if unknown:
        raise Invalid(f"there is no field {min(unknown)!r:.60} of records here")
    made = {name: check_field(name, value, partial=False) for name, value in fields.items()}
    if not isinstance(made.get("classification"), str):
        raise Invalid("it has no classification")
    spec = made.setdefault("spec", {})
    refuse_marks(spec, (), ())
    if redact_secrets(spec, kind.secret_paths) != spec:
        raise Invalid("it came with a secret, which peers do not send")
    return Content(**{name: value for name, value in made.items() if value is not None})


def _given(content: Content) -> dict[str, Any]:
    return {name: getattr(content, name) for name in CONTENT_FIELDS}
