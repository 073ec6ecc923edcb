"""Form fields instead of JSON (`application/x-www-form-urlencoded`): for shells, which then never build JSON. Pure.

A field is one value, byte for byte. What type it gets says whoever takes it: the kind of a record, or the model of a body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_origin
from urllib.parse import unquote_to_bytes

import msgspec

from universal_registry.kernel.errors import Malformed, RegistryError, UsageError
from universal_registry.kernel.limits import DEFAULT_LIMITS, Limits, brief, check_string
from universal_registry.kernel.loader import load_json
from universal_registry.registry.assignment import Assignment

FORM_TYPE = "application/x-www-form-urlencoded"
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def form_pairs(body: bytes, limits: Limits = DEFAULT_LIMITS) -> list[tuple[str, str]]:
    """The fields in order. Bytes that the format needs encoded (`%`, `&`, `+`, and `=` in a name) must be; all others
    may stand as they are. Raises Malformed, TooLarge."""
    pieces = body.split(b"&") if body else []
    if len(pieces) > limits.keys:
        raise Malformed(f"the form has {len(pieces)} fields", hint=f"at most {limits.keys}")
    pairs = []
    for piece in pieces:
        name, equals, value = piece.partition(b"=")
        if not equals or not name:
            raise Malformed(f"{_shown(piece)} is no field of a form", hint="NAME=VALUE, with & between fields")
        pairs.append((_decoded(name, limits, "a name"), _decoded(value, limits, _shown(name))))
    return pairs


def assignments(pairs: Sequence[tuple[str, str]]) -> list[Assignment]:
    """The fields as `ureg set` has them: a name that ends in `:` is given JSON."""
    return [Assignment(name.removesuffix(":"), text, name.endswith(":")) for name, text in pairs]


def model_object(pairs: Sequence[tuple[str, str]], model: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON object of a body of that model. A list repeats its field; a field of any type takes JSON, and other text
    as a string. Numbers and booleans stay text: to be converted without `strict`. Raises UsageError, Malformed."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(model)}
    found: dict[str, Any] = {}
    for assignment in assignments(pairs):
        name = assignment.path
        if not assignment.is_json and _is_list(types.get(name)):
            listed = found.setdefault(name, [])
            if isinstance(listed, list):
                listed.append(assignment.text)
                continue
        if name in found:
            raise UsageError(f"field {brief(name)} is given twice", hint="once is enough")
        found[name] = _value(assignment, anything=types.get(name) is Any)
    return found


def _is_list(wanted: Any) -> bool:
    return get_origin(wanted) is list


def _value(assignment: Assignment, *, anything: bool) -> Any:
    if not assignment.is_json and not anything:
        return assignment.text
    try:
        return load_json(assignment.text)
    except RegistryError as error:
        if not assignment.is_json and isinstance(error, Malformed):
            return assignment.text
        raise type(error)(f"{brief(assignment.path)}: {error.message}", hint=error.hint) from None


def _decoded(raw: bytes, limits: Limits, where: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise Malformed(f"the form, {where}: % is not followed by two hex digits", hint="write %25 for %")
    try:
        text = unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise Malformed(f"the form, {where}: it is not UTF-8 once decoded") from None
    check_string(text, limits, where)
    return text


def _shown(raw: bytes) -> str:
    return brief(raw[:80].decode(errors="replace"))
