"""Which records: one selector for lists, routes and sessions. Pure; storage compiles it to SQL."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key, check_namespace
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.record import Record

_TERM = re.compile(r"(!?)([A-Za-z0-9_][\w./-]*)(?:(!=|=)(.*))?", re.DOTALL)
_MAX_TERMS = 64


class Selector(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All given terms must hold; within a tuple, any. Empty: everything outside `system`, which must be named.

    `names`: globs with `*` and `?`; a backslash makes the next character literal. `classifications` already include
    children. `labels`/`fields`: name -> allowed values (None: it must exist); `not_labels`: name -> values refused
    (None: it must not exist). Field names are paths into `spec` with dots.
    """

    kinds: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    classifications: tuple[str, ...] = ()
    labels: dict[str, tuple[str, ...] | None] = {}
    not_labels: dict[str, tuple[str, ...] | None] = {}
    fields: dict[str, tuple[Any, ...]] = {}

    def matches(self, record: Record) -> bool:
        """Whether the record is selected."""
        return (
            self.covers(record.key)
            and (not self.classifications or record.classification in self.classifications)
            and all(_label_in(record.labels.get(key), allowed) for key, allowed in self.labels.items())
            and not any(_label_in(record.labels.get(key), refused) for key, refused in self.not_labels.items())
            and all(_field(record.spec, path) in allowed for path, allowed in self.fields.items())
        )

    def covers(self, key: Key) -> bool:
        """Whether a record of that key may be selected: what its key says does not refuse it."""
        return (
            (not self.kinds or key.kind in self.kinds)
            and self._namespace_matches(key.namespace)
            and (not self.names or any(glob_regex(glob).fullmatch(key.name) for glob in self.names))
        )

    @property
    def is_of_keys(self) -> bool:
        """Whether the key alone decides."""
        return not (self.classifications or self.labels or self.not_labels or self.fields)

    def _namespace_matches(self, namespace: str) -> bool:
        return namespace in self.namespaces if self.namespaces else namespace != SYSTEM_NAMESPACE


def _label_in(value: str | None, allowed: tuple[str, ...] | None) -> bool:
    return value is not None and (allowed is None or value in allowed)


def _field(spec: dict[str, Any], path: str) -> Any:
    value: Any = spec
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def glob_parts(glob: str) -> list[tuple[str, bool]]:
    """A glob as (text, is_wildcard) pairs; literals are merged. `*` and `?` are the only wildcards."""
    parts: list[tuple[str, bool]] = []
    literal = ""
    chars = iter(glob)
    for char in chars:
        if char in "*?":
            if literal:
                parts.append((literal, False))
                literal = ""
            parts.append((char, True))
        else:
            literal += next(chars, "\\") if char == "\\" else char
    if literal:
        parts.append((literal, False))
    return parts


def glob_regex(glob: str) -> re.Pattern[str]:
    """The regular expression of a glob (cached by `re`)."""
    wild = {"*": ".*", "?": "."}
    return re.compile(
        "".join(wild[text] if is_wild else re.escape(text) for text, is_wild in glob_parts(glob)), re.DOTALL
    )


def exact_name(name: str) -> str:
    """The glob that matches this name alone."""
    return re.sub(r"([*?\\])", r"\\\1", name)


def parse_selector(terms: str | list[str] | dict[str, Any], catalogue: Catalogue) -> Selector:
    """A selector from text or from its JSON form.

    Text: terms split by commas, e.g. `kind=alias,name=g*,labels.tier=backend,spec.port=8443,!labels.old`; keys `kind`,
    `namespace`, `name`, `class`; a comma inside a value is written `\\,`. Several terms of one key are alternatives.
    JSON: the fields of Selector, or their singular. Raises Invalid with "did you mean".
    """
    builder = _Builder(catalogue)
    if isinstance(terms, dict):
        builder.add_object(terms)
    else:
        for text in [terms] if isinstance(terms, str) else terms:
            for term in re.split(r"(?<!\\),", text):
                if term.strip():
                    builder.add_text(term.strip().replace("\\,", ","))
    return builder.build()


class _Builder:
    """Collects terms."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lists: dict[str, list[str]] = {"kinds": [], "namespaces": [], "names": [], "classifications": []}
        self._labels: dict[str, list[str] | None] = {}
        self._not_labels: dict[str, list[str] | None] = {}
        self._fields: dict[str, list[Any]] = {}
        self._count = 0

    def add_text(self, term: str) -> None:
        match = _TERM.fullmatch(term)
        if match is None:
            raise Invalid(f"selector term {term[:80]!r} cannot be read", hint="write key=value, as in kind=alias")
        negated, key, operator, value = bool(match[1]), match[2], match[3], match[4]
        if key.startswith("labels."):
            self._label(key[7:], value, refuse=negated or operator == "!=")
        elif negated or operator != "=":
            raise Invalid(f"selector term {term[:80]!r}: only labels can be negated or tested for existence")
        elif key.startswith("spec."):
            self._field_values(key[5:], [value, *_typed(value)])
        else:
            self._term(key, value)

    def add_object(self, terms: dict[str, Any]) -> None:
        for key, value in terms.items():
            if key in ("labels", "not_labels", "fields"):
                if not isinstance(value, dict):
                    raise Invalid(f"selector {key} must be an object")
                for name, allowed in value.items():
                    values = allowed if isinstance(allowed, list) else [allowed]
                    if key == "fields":
                        self._field_values(name, values)
                        continue
                    for item in values:
                        self._label(name, None if item is None else str(item), refuse=key == "not_labels")
            else:
                for item in value if isinstance(value, list) else [value]:
                    self._term(key, item)

    def _term(self, key: str, value: Any) -> None:
        self._count_up()
        if not isinstance(value, str):
            raise Invalid(f"selector {key} must be text, not {value!r:.40}")
        match key:
            case "kind" | "kinds":
                self._lists["kinds"].append(self._catalogue.kind(value).name)
            case "namespace" | "namespaces":
                self._lists["namespaces"].append(check_namespace(value))
            case "name" | "names":
                self._lists["names"].append(value)
            case "class" | "classification" | "classifications":
                name = self._catalogue.classification(value).name
                self._lists["classifications"].extend(sorted(self._catalogue.children(name)))
            case _:
                raise Invalid(
                    f"unknown selector key {key[:60]!r}",
                    hint="kind, namespace, name, class, labels.NAME or spec.FIELD",
                )

    def _label(self, name: str, value: str | None, *, refuse: bool) -> None:
        self._count_up()
        bucket = self._not_labels if refuse else self._labels
        values = bucket.setdefault(name, [])
        if value is None or values is None:
            bucket[name] = None
        else:
            values.append(value)

    def _field_values(self, path: str, values: list[Any]) -> None:
        self._count_up()
        if any(isinstance(value, (dict, list)) for value in values):
            raise Invalid(f"selector field {path[:60]!r} can only be compared with a plain value")
        self._fields.setdefault(path, []).extend(values)

    def _count_up(self) -> None:
        self._count += 1
        if self._count > _MAX_TERMS:
            raise Invalid(f"more than {_MAX_TERMS} selector terms")

    def build(self) -> Selector:
        return Selector(
            **{key: tuple(values) for key, values in self._lists.items()},
            labels={key: None if values is None else tuple(values) for key, values in self._labels.items()},
            not_labels={key: None if values is None else tuple(values) for key, values in self._not_labels.items()},
            fields={key: tuple(values) for key, values in self._fields.items()},
        )


def _typed(text: str) -> list[Any]:
    """The other values that the text of a comparison may stand for: `8443` is also the number, `true` the boolean."""
    if text in ("true", "false"):
        return [text == "true"]
    try:
        return [int(text)]
    except ValueError:
        pass
    try:
        return [float(text)]
    except ValueError:
        return []


def selector_document(selector: Selector) -> dict[str, Any]:
    """The JSON form, as it stands in a route."""
    shown = msgspec.to_builtins(selector)
    assert isinstance(shown, dict)
    return shown
