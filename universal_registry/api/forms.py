"""Form fields instead of JSON (`application/x-www-form-urlencoded`): for shells, which then never build JSON. Pure.

A field is one value, byte for byte. Which type it gets is said by the kind of a record, or by the model of a body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_origin
from urllib.parse import unquote_to_bytes

import msgspec

from universal_registry.kernel.errors import Invalid, Malformed, RegistryError, UsageError
from universal_registry.kernel.limits import DEFAULT_LIMITS, Limits, brief, check_string
from universal_registry.kernel.loader import load_json
from universal_registry.registry.assignment import Assignment, build, merge_into

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
        pairs.append((_decoded(name, "a name"), _decoded(value, _shown(name))))
    return pairs


def record_content(pairs: Sequence[tuple[str, str]], kind: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields say of a record of that kind, named as for `ureg set`: a name that ends in `:` is given JSON.
    `spec:` is the whole spec, into which the others go. Raises UsageError, Invalid, Malformed, TooLarge."""
    content: dict[str, Any] = {}
    found = []
    for each in (_assignment(*pair) for pair in pairs):
        if each.path == "spec" and each.is_json:
            if "spec" in content:
                raise UsageError("field spec is given twice", hint="once is enough")
            content["spec"] = _json("spec", each.text)
            if not isinstance(content["spec"], dict):
                raise Invalid("spec is not an object", hint='such as {"port": 8443}')
        else:
            found.append(each if each.is_json else each._replace(text=_string(each.path, each.text)))
    merge_into(content, build(found, kind, None).document)
    return content


def model_object(pairs: Sequence[tuple[str, str]], model: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON object of a body of that model. A list repeats its field; a field of any type takes JSON, and other text
    as a string; blank text there is no value. Numbers and booleans stay text: to be converted without `strict`. Raises
    UsageError, Malformed, TooLarge."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(model)}
    found: dict[str, Any] = {}
    for name, text, is_json in (_assignment(*pair) for pair in pairs):
        wanted = types.get(name)
        if get_origin(wanted) is list and not is_json and isinstance(found.get(name, []), list):
            found.setdefault(name, []).append(_string(name, text))
        elif name in found:
            raise UsageError(f"field {brief(name)} is given twice", hint="once is enough")
        elif is_json or wanted is not Any:
            found[name] = _json(name, text) if is_json else _string(name, text)
        elif text.strip():
            found[name] = _anything(name, text)
    return found


def _assignment(name: str, text: str) -> Assignment:
    return Assignment(name.removesuffix(":"), text, name.endswith(":"))


def _string(name: str, text: str) -> str:
    check_string(text, DEFAULT_LIMITS, brief(name))
    return text


def _anything(name: str, text: str) -> Any:
    try:
        return load_json(text)
    except Malformed:
        return _string(name, text)


def _json(name: str, text: str) -> Any:
    try:
        return load_json(text)
    except RegistryError as error:
        raise type(error)(f"{brief(name)}: {error.message}", hint=error.hint) from None


def _decoded(raw: bytes, where: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise Malformed(f"the form, {where}: % is not followed by two hex digits", hint="write %25 for %")
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise Malformed(f"the form, {where}: it is not UTF-8 once decoded") from None


def _shown(raw: bytes) -> str:
    return brief(raw[:80].decode(errors="replace"))
