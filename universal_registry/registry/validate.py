"""Does a spec fit its kind? Pure, and before any SQL, so that a mistyped value gets our message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.jsonvalue import name_of_type
from universal_registry.registry.catalogue import Classification, Field, FieldType, Kind
from universal_registry.registry.words import near, shown
from universal_registry.security.cipher import KEPT, is_sealed

_ARTICLE = {"integer": "an integer", "object": "an object", "array": "an array", "null": "null"}
_PYTHON: dict[FieldType, tuple[type, ...]] = {
    FieldType.STRING: (str,),
    FieldType.INTEGER: (int,),
    FieldType.NUMBER: (int, float),
    FieldType.BOOLEAN: (bool,),
    FieldType.OBJECT: (dict,),
    FieldType.ARRAY: (list,),
    FieldType.ANY: (str, int, float, bool, dict, list),
}


def validate_spec(kind: Kind, classification: Classification | str | None, spec: Any, *, strict: bool) -> list[str]:
    """The warnings (undeclared fields, which are kept); nothing is changed.

    Raises Invalid with `data["path"]` for a value of a wrong type, an unknown enum word, a missing required field, and
    (when `strict`, or the kind is) an undeclared field. A message never holds the value of a secret.
    """
    if type(spec) is not dict:
        raise Invalid(f"spec must be an object, not {_a(name_of_type(spec))}", path="spec", expected="object")
    declared, required = kind.by_name, kind.required
    if classification is not None:
        of_kind = _of_kind(kind, classification)
        declared, required = of_kind.declared, of_kind.required
    warnings: list[str] = []
    _Check(kind, strict or kind.strict, warnings).members(declared, required, spec, "spec")
    return warnings


def _of_kind(kind: Kind, classification: Classification | str) -> Classification:
    name = classification if isinstance(classification, str) else classification.name
    found = kind.classes_by_name.get(name)
    if found is not None:
        return found
    guesses = near(name, tuple(kind.classes_by_name))
    hint = f"did you mean {guesses[0]!r}?" if guesses else "one of " + ", ".join(kind.classes_by_name)
    raise Invalid(
        f"{shown(name)} is not a classification of {kind.name}", hint=hint, path="classification", did_you_mean=guesses
    )


class _Check:
    """One walk over one spec."""

    __slots__ = ("kind", "strict", "warnings")

    def __init__(self, kind: Kind, strict: bool, warnings: list[str]) -> None:
        self.kind = kind
        self.strict = strict
        self.warnings = warnings

    def members(
        self,
        declared: Mapping[str, Field],
        required: Sequence[Field],
        value: dict[str, Any],
        path: str,
        *,
        free: bool = False,
    ) -> None:
        """The members of an object against the fields that are declared for it, some of them required."""
        for name, each in value.items():
            field = declared.get(name)
            if field is not None:
                self.value(field, each, f"{path}.{name}")
            elif not free:
                self.undeclared(declared, name, path)
        for field in required:
            if field.name not in value:
                raise Invalid(
                    f"{path}.{field.name} is missing: {self.kind.name} needs it",
                    hint=field.doc or None,
                    path=f"{path}.{field.name}",
                    expected=field.type.value,
                )

    def undeclared(self, declared: Mapping[str, Field], name: str, path: str) -> None:
        """Refused when strict, else a warning; with the declared name that may have been meant."""
        where = f"{path}.{name}" if len(name) <= 64 and name.isprintable() else f"{path}[{shown(name)}]"
        guesses = near(name, tuple(declared))
        meant = f"did you mean {guesses[0]!r}?" if guesses else None
        if self.strict:
            hint = meant or f"its fields: {', '.join(declared)}"
            raise Invalid(f"{where} is not a field of {self.kind.name}", hint=hint, path=where, did_you_mean=guesses)
        note = f" ({meant})" if meant else ""
        self.warnings.append(f"{where} is not a field of {self.kind.name}; it is kept as it is{note}")

    def value(self, field: Field, value: Any, path: str) -> None:
        """One value against its field: type, then enum, pattern and range, then what is inside."""
        if field.secret:
            _check_secret(field, value, path)
            return
        if type(value) not in _PYTHON[field.type]:
            raise _mistyped(field, value, path)
        if field.enum and value not in field.enum:
            raise _not_in_enum(field, value, path)
        if field.pattern is not None and re.fullmatch(field.pattern, value) is None:
            raise Invalid(
                f"{path} is {shown(value)}, which does not match {field.pattern}",
                hint=field.doc or None,
                path=path,
                expected=field.pattern,
            )
        if field.minimum is not None or field.maximum is not None:
            _check_range(field, value, path)
        if field.names is not None:
            _check_names(field, field.names, value, path)
        if field.fields:
            self.members(field.by_name, field.needed, value, path, free=field.open)
        if field.items is not None:
            for position, each in enumerate(value):
                self.value(field.items, each, f"{path}[{position}]")


def _check_names(field: Field, pattern: str, value: dict[str, Any], path: str) -> None:
    for name in value:
        if re.fullmatch(pattern, name) is None:
            raise Invalid(
                f"{path} holds the name {shown(name)}, which does not match {pattern}",
                hint=field.doc or None,
                path=path,
                expected=pattern,
            )


def _check_secret(field: Field, value: Any, path: str) -> None:
    if type(value) is str or value == KEPT or is_sealed(value):
        return
    if value is None:
        raise _mistyped(field, None, path)
    raise Invalid(
        f"{path} is a secret and must be a string, not {_a(name_of_type(value))}",
        hint='send the text, or {"$secret": "kept"} to leave it as it is',
        path=path,
        expected="string",
    )


def _mistyped(field: Field, value: Any, path: str) -> Invalid:
    expected = field.type.value
    if value is None:
        return Invalid(f"{path} is null", hint="leave the field out instead", path=path, expected=expected)
    got = name_of_type(value)
    plain = not field.holds_secret and got not in ("object", "array")
    what = f"the {got} {shown(value)}" if plain else _a(got)
    return Invalid(f"{path} must be {_a(expected)}, not {what}", hint=field.doc or None, path=path, expected=expected)


def _not_in_enum(field: Field, value: Any, path: str) -> Invalid:
    words = [str(each) for each in field.enum]
    guesses = near(str(value), tuple(words))
    meant = f"; did you mean {guesses[0]!r}?" if guesses else ""
    return Invalid(
        f"{path} is {shown(value)}",
        hint=f"one of {', '.join(words)}{meant}",
        path=path,
        expected=words,
        did_you_mean=guesses,
    )


def _check_range(field: Field, value: Any, path: str) -> None:
    low, high = field.minimum, field.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = [f"at least {low}"] if low is not None else []
        bounds += [f"at most {high}"] if high is not None else []
        raise Invalid(
            f"{path} is {shown(value)}; it must be {' and '.join(bounds)}", path=path, expected=field.type.value
        )


def _a(name: str) -> str:
    return _ARTICLE.get(name, f"a {name}")
