"""A route's filter: which changes of the records that it selects are sent. Pure.

Terms split by commas, all of which must hold: `verb=updated,changed=spec.port,spec.port>=8000`. A comma inside a value
is written `\\,`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid
from universal_registry.log.change import Change
from universal_registry.propagation.messages.cloudevent import verb
from universal_registry.registry.record import Record
from universal_registry.registry.selector import glob_regex
from universal_registry.registry.words import near, shown
from universal_registry.security.cipher import is_sealed

_TERM = re.compile(r"([a-z_]+(?:\.[^=!<>,]+)?)\s*(!=|<=|>=|=|<|>)\s*(.*)", re.DOTALL)
_WHOLE = ("verb", "actor", "message", "classification", "lifecycle", "changed")
_INSIDE = ("spec", "labels", "annotations", "health")
_MOST_TERMS = 32
_VERBS = ("created", "updated", "deleted")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda found, wanted: found < wanted,
    "<=": lambda found, wanted: found <= wanted,
    ">": lambda found, wanted: found > wanted,
    ">=": lambda found, wanted: found >= wanted,
}


class Term(msgspec.Struct, frozen=True):
    """One comparison. `path`: a word of a change, or the steps to a field of its record."""

    path: tuple[str, ...]
    operator: str
    value: str

    def holds(self, change: Change, record: Record) -> bool:
        """A field that is not there, or is a secret, equals nothing and is not ordered."""
        found = _values(self.path, change, record)
        if self.operator == "=":
            return any(_equals(each, self.value) for each in found)
        if self.operator == "!=":
            return not any(_equals(each, self.value) for each in found)
        return any(_ordered(each, self.operator, self.value) for each in found)


class Filter(msgspec.Struct, frozen=True):
    """All terms must hold; the empty filter takes every change. `text`: as it was written."""

    text: str = ""
    terms: tuple[Term, ...] = ()

    def matches(self, change: Change, record: Record) -> bool:
        """Whether the change is sent. `record`: as of that line (of a deletion: as it last was)."""
        return all(term.holds(change, record) for term in self.terms)


def parse_filter(text: str) -> Filter:
    """Raises Invalid, naming the term, for what could never hold as it is meant."""
    terms = [_term(each.strip().replace("\\,", ",")) for each in re.split(r"(?<!\\),", text) if each.strip()]
    if len(terms) > _MOST_TERMS:
        raise Invalid(f"a filter of {len(terms)} terms", hint=f"at most {_MOST_TERMS}", path="filter")
    return Filter(text, tuple(terms))


def _term(text: str) -> Term:
    match = _TERM.fullmatch(text)
    if match is None:
        hint = "such as verb=deleted, spec.port>=8000 or changed=spec.*"
        raise Invalid(f"filter term {shown(text)} cannot be read", hint=hint, path="filter")
    head, dot, rest = match[1].strip().partition(".")
    operator, value = match[2], match[3].strip()
    if head not in _WHOLE if not dot else head not in _INSIDE or not rest:
        guesses = near(head, (*_WHOLE, *(f"{each}.FIELD" for each in _INSIDE)))
        hint = (
            f"did you mean {guesses[0]}?" if guesses else ", ".join((*_WHOLE, *(f"{each}.FIELD" for each in _INSIDE)))
        )
        raise Invalid(f"filter term {shown(text)}: a change has no {shown(match[1])}", hint=hint, path="filter")
    if head == "verb" and (operator not in ("=", "!=") or value not in _VERBS):
        raise Invalid(f"filter term {shown(text)}", hint="verb is " + ", ".join(_VERBS), path="filter")
    if operator in _ORDER and _number(value) is None:
        raise Invalid(f"filter term {shown(text)}: {operator} compares numbers", path="filter")
    return Term(
        (head, *rest.split(".")) if dot and head != "labels" else (head, rest) if dot else (head,), operator, value
    )


def _values(path: tuple[str, ...], change: Change, record: Record) -> list[Any]:
    """What stands there: one value, all of a list, or nothing."""
    match path[0]:
        case "verb":
            return [verb(change)]
        case "changed":
            return list(change.changed_fields)
        case "actor" | "message":
            return [getattr(change, path[0])]
        case _:
            found: Any = getattr(record, path[0])
    for step in path[1:]:
        found = found.get(step) if isinstance(found, dict) and not is_sealed(found) else None
    return found if isinstance(found, list) else [] if found is None else [found]


def _equals(found: Any, wanted: str) -> bool:
    if isinstance(found, str):
        return glob_regex(wanted).fullmatch(found) is not None
    if isinstance(found, bool):
        return wanted == ("true" if found else "false")
    return isinstance(found, int | float) and found == _number(wanted)


def _ordered(found: Any, operator: str, wanted: str) -> bool:
    number = _number(wanted)
    if not isinstance(found, int | float) or isinstance(found, bool) or number is None:
        return False
    return _ORDER[operator](found, number)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", text, re.ASCII) else None
