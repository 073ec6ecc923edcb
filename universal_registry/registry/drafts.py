"""Documents as people write them, made into operations. Pure: validates, and seals what is secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key, check_name, check_namespace
from universal_registry.registry.catalogue import Catalogue, Kind
from universal_registry.registry.patch import Step, StepOp, parse_patch, pointer_text
from universal_registry.registry.record import CONTENT_FIELDS, Content, Lifecycle
from universal_registry.registry.validate import validate_spec
from universal_registry.registry.words import near, shown
from universal_registry.security.cipher import KEPT, Sealer, SecretPath, is_sealed

_IDENTITY = ("kind", "namespace", "name", "meta")
_KNOWN = (*_IDENTITY, *CONTENT_FIELDS)
_KNOWN_SET, _IDENTITY_SET = frozenset(_KNOWN), frozenset(_IDENTITY)
_MOST_LABELS = 64
_MOST_TEXT = 4096
_HEALTH = ("passing", "warning", "critical", "unknown")
_MARKS = ("$sealed", "$secret", "$mac")
Document = dict[str, Any]


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A document that was checked: which record, and the content fields it gives (secrets sealed)."""

    key: Key
    fields: dict[str, Any]
    default_classification: str
    if_revision: int | None
    warnings: tuple[str, ...]

    def content(self) -> Content:
        """All of it, for a full replacement."""
        return Content(**self.fields)


class DraftReader:
    """Reads documents against a catalogue."""

    def __init__(self, catalogue: Catalogue, sealer: Sealer) -> None:
        self._catalogue = catalogue
        self._sealer = sealer

    def key(self, kind: str, namespace: str, name: str) -> Key:
        """The checked key. Raises Invalid."""
        return Key(self._catalogue.kind(kind).name, check_namespace(namespace), check_name(name))

    def read(self, document: Any, *, strict: bool, partial: bool = False) -> Draft:
        """Check one document. `partial`: fields may be null (remove), and the spec is checked only once merged.

        Raises Invalid naming the field. Never changes the document.
        """
        if type(document) is not dict:
            raise Invalid(f"a record is an object, not {shown(document)}", hint='write {"kind", "name", "spec"}')
        _refuse_unknown(document)
        kind, classification = self._kind_of(document)
        namespace = document.get("namespace")
        namespace = DEFAULT_NAMESPACE if namespace is None else check_namespace(namespace)
        key = Key(kind.name, namespace, check_name(document.get("name")))
        fields: dict[str, Any] = {}
        for field, value in document.items():
            if field not in _IDENTITY_SET and (partial or value is not None):
                fields[field] = check_field(field, value, partial=partial)
        default = kind.classifications[0].name
        spec = fields.get("spec")
        warnings: Sequence[str] = ()
        if classification is not None:
            fields["classification"] = classification
        if not partial:
            classification = fields.setdefault("classification", default)
            warnings = validate_spec(kind, classification, fields.setdefault("spec", {}), strict=strict)
        if spec:
            secrets = kind.secret_paths
            refuse_marks(spec, secrets, ())
            if partial:
                check_secret_types(spec, secrets, removable=True)
            held = [path for path in secrets if path[0] in spec]
            fields["spec"] = self._sealer.seal_secrets(spec, held, str(key)) if held else dict(spec)
        return Draft(
            key=key,
            fields=fields,
            default_classification=default,
            if_revision=meta_revision(document.get("meta")),
            warnings=tuple(warnings),
        )

    def steps(self, key: Key, patch: Any) -> tuple[Step, ...]:
        """The steps of a JSON patch of that record, secrets in them sealed. Raises Invalid naming the step."""
        secrets = self._catalogue.kinds[key.kind].secret_paths
        return tuple(self._step(key, step, secrets) for step in parse_patch(patch))

    def _step(self, key: Key, step: Step, secrets: tuple[SecretPath, ...]) -> Step:
        _check_place(step, secrets)
        changes = step.op in (StepOp.ADD, StepOp.REPLACE)
        if changes and step.path == ("classification",) and isinstance(step.value, str):
            return msgspec.structs.replace(step, value=self._catalogue.classification(step.value).name)
        place = step.path[1:]
        if not changes or step.path[0] != "spec" or not any(_related(place, path) for path in secrets):
            return step
        spec: Any = step.value
        for token in reversed(place):
            spec = {token: spec}
        if not isinstance(spec, dict):
            return step  # no spec at all: what it makes of the record is refused
        check_secret_types(spec, secrets)
        sealed: Any = self._sealer.seal_secrets(spec, secrets, str(key))
        for token in place:
            sealed = sealed[token]
        return msgspec.structs.replace(step, value=sealed)

    def _kind_of(self, document: Document) -> tuple[Kind, str | None]:
        word, class_word = document.get("kind"), document.get("classification")
        if class_word is None and type(word) is str:
            return self._catalogue.kind(word), None  # as most are
        for name, value in (("kind", word), ("classification", class_word)):
            if value is not None and not isinstance(value, str):
                raise Invalid(f"{name} must be a string, not {shown(value)}", path=name)
        classification = self._catalogue.classification(class_word) if class_word else None
        if word is None:
            if classification is None:
                raise Invalid("the record has no kind", hint="give kind or classification", path="kind")
            return self._catalogue.kinds[classification.kind], classification.name
        kind = self._catalogue.kind(word)
        if classification is not None and classification.kind != kind.name:
            raise Invalid(
                f"{classification.name} is a classification of {classification.kind}, not of {kind.name}",
                hint=f"one of {', '.join(kind.classes_by_name)}",
                path="classification",
            )
        return kind, classification.name if classification else None


def _refuse_unknown(document: Document) -> None:
    if document.keys() <= _KNOWN_SET:
        return
    for name in document:
        if name not in _KNOWN_SET:
            guesses = near(str(name), _KNOWN)
            hint = f"did you mean {guesses[0]!r}?" if guesses else "what belongs to the kind stands under spec"
            raise Invalid(f"a record has no field {shown(name)}", hint=hint, path=str(name))


_READ_ONLY = ("kind", "namespace", "name", "meta")


def _check_place(step: Step, secrets: tuple[SecretPath, ...]) -> None:
    """A step may change what people write, and a secret only as a whole."""
    for pointer, read in ((step.path, step.op is StepOp.TEST), (step.source, step.op is StepOp.COPY)):
        if pointer is None:
            continue
        top = pointer[0] if pointer else ""
        if top in _READ_ONLY and not read:
            raise step.refusal(f"/{top} cannot be changed", "a record keeps its kind, namespace and name")
        if top not in CONTENT_FIELDS and top not in _READ_ONLY:
            guesses = near(top, CONTENT_FIELDS)
            hint = f"did you mean /{guesses[0]}?" if guesses else f"paths begin with /{', /'.join(CONTENT_FIELDS)}"
            raise step.refusal(f"a record has nothing at {shown(pointer_text(pointer))}", hint)
        for secret in secrets if top == "spec" else ():
            if len(pointer) - 1 > len(secret) and pointer[1 : len(secret) + 1] == secret:
                raise step.refusal("a secret has no parts", "replace it as a whole")
            if step.source is not None and _related(pointer[1:], secret):
                raise step.refusal("a secret is not moved or copied", "send it itself where it belongs")


def _related(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def check_secret_types(spec: dict[str, Any], secrets: tuple[SecretPath, ...], *, removable: bool = False) -> None:
    """A secret is a text, a sealed one or a kept one (`removable`: or null); refused before anything is sealed."""
    for path in secrets:
        value: Any = spec
        for name in path:
            value = value.get(name, "") if isinstance(value, dict) else ""
        if not (isinstance(value, str) or value == KEPT or is_sealed(value) or (value is None and removable)):
            where = ".".join(("spec", *path))
            hint = 'send the text, or {"$secret": "kept"} to leave it as it is'
            raise Invalid(f"{where} is a secret and must be a string", hint=hint, path=where)


def check_field(field: str, value: Any, *, partial: bool) -> Any:
    """One content field of a document, as it will be stored. Raises Invalid."""
    if value is None:
        return None
    match field:
        case "labels" | "annotations":
            return _string_map(field, value, partial=partial)
        case "spec":
            if type(value) is not dict:
                raise Invalid(f"spec must be an object, not {shown(value)}", path="spec")
            return value
        case "health":
            return _health(value)
        case "expires_at":
            return _time(field, value)
        case "lifecycle":
            if value not in tuple(Lifecycle):
                raise Invalid(f"lifecycle {shown(value)} is unknown", hint=f"one of {', '.join(Lifecycle)}", path=field)
            return value
        case _:
            return _text(field, value)


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{field} must be a string, not {shown(value)}", path=field)
    if len(value) > _MOST_TEXT:
        raise Invalid(f"{field} is {len(value)} characters long", hint=f"at most {_MOST_TEXT}", path=field)
    return value


def _string_map(field: str, value: Any, *, partial: bool) -> dict[str, Any]:
    if type(value) is not dict:
        raise Invalid(f"{field} must be an object of strings, not {shown(value)}", path=field)
    if len(value) > _MOST_LABELS:
        raise Invalid(f"{len(value)} {field}", hint=f"at most {_MOST_LABELS}", path=field)
    for name, item in value.items():
        if not (isinstance(item, str) or (item is None and partial)):
            raise Invalid(f"{field}.{name} must be a string, not {shown(item)}", path=f"{field}.{name}")
        if field == "labels":
            check_name(name)
    return value


def _health(value: Any) -> dict[str, Any]:
    health = {"status": value} if isinstance(value, str) else value
    if type(health) is not dict or health.get("status") not in _HEALTH:
        status = health.get("status", health) if type(health) is dict else value
        raise Invalid(f"health {shown(status)} is no known status", hint=f"one of {', '.join(_HEALTH)}", path="health")
    return health


def _time(field: str, value: Any) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Invalid(f"{field} {shown(value)} is no time with zone", hint="as in 2030-01-31T12:00:00Z", path=field)
    return str(value)


def meta_revision(meta: Any) -> int | None:
    """`meta` is what an earlier answer said; of it only the revision counts, as If-Match."""
    if meta is None or not isinstance(meta, Mapping) or meta.get("revision") is None:
        return None
    revision = meta["revision"]
    if not isinstance(revision, int) or isinstance(revision, bool) or revision < 0:
        raise Invalid(f"meta.revision {shown(revision)} is not a revision", path="meta.revision")
    return revision


def refuse_marks(value: Any, secret_paths: tuple[SecretPath, ...], path: SecretPath) -> None:
    """`$sealed`, `$secret` and `$mac` mean something only where the kind declares a secret."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                refuse_marks(item, secret_paths, path)
    elif isinstance(value, dict):
        if path in secret_paths:
            return
        for name, item in value.items():
            if name in _MARKS:
                where = ".".join(("spec", *path))
                raise Invalid(f"{where} holds {name!r}, but is not declared as a secret", path=where)
            if isinstance(item, dict | list):
                refuse_marks(item, secret_paths, (*path, name))
