"""The one strict loader: every JSON or YAML text that enters the product passes here.

Accepted is what means the same to everyone: UTF-8 without a byte order mark, no key twice in one object, no NaN or
Infinity, no lone surrogate, no NUL, no integer that a double cannot hold. Depth is bounded before anything is parsed.

JSON is read twice at most. The fast reading (orjson) is kept only when cheap counts prove that it met none of the
forbidden things; every doubt and every error goes to the exact reading (stdlib json with hooks), which finds the cause
and names it. So the exact reading alone decides what is refused.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from universal_registry.kernel.errors import Malformed, RegistryError, TooLarge

SAFE_INTEGER = 1 << 53
"""Integers up to this, either sign, are exact in every language's double."""

_NUMBER_CHARS = 400
_BOM = b"\xef\xbb\xbf"
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_KEY_ENDS = re.compile(rb'"[ \t\r\n]*:')
_FOLD = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_HINTS = {
    "'": "strings and keys take double quotes",
    "/": "JSON has no comments",
    "#": "JSON has no comments",
    "T": "write true, false and null in lower case",
    "F": "write true, false and null in lower case",
    "}": "remove the comma before it, or add what is missing",
    "]": "remove the comma before it, or add what is missing",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may hold. `body` and `string` in bytes of UTF-8; `keys` over all objects; `depth` in levels."""

    body: int = 1 << 20
    depth: int = 64
    keys: int = 10_000
    string: int = 256 << 10


DEFAULT_LIMITS = Limits()


def load_json(data: bytes | str, *, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of one JSON document. Raises Malformed or TooLarge and nothing else, whatever the bytes."""
    return _load(check_text(data, limits), limits, 1)


def load_ndjson(data: bytes | str | Iterable[bytes], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Any]:
    """The value of each non-blank line; `limits` hold for each line. `data` is the text, or an iterable of its lines.

    Errors come when the iterator reaches the line, and name it.
    """
    if isinstance(data, str):
        data = _encode(data)
    lines = io.BytesIO(data) if isinstance(data, bytes | bytearray | memoryview) else data
    for number, line in enumerate(lines, 1):
        if not line.strip(b" \t\r\n"):
            continue
        try:
            value = _load(check_text(line, limits), limits, number)
        except RegistryError as error:
            if "line" in error.data:
                raise
            message = f"line {number}: {error.message}"
            raise type(error)(message, hint=error.hint, line=number, **error.data) from None
        yield value


def load_yaml(text: bytes | str, *, limits: Limits = DEFAULT_LIMITS) -> list[Any]:
    """The values of all documents of a YAML 1.2 text; documents without content are left out.

    Scalars by the core schema (`no`, `on` and dates are strings); no aliases, anchors, tags, merge keys, repeated keys.
    The parser is pure Python at about 150 kB/s: for command lines and files, not for an event loop.
    Raises Malformed or TooLarge and nothing else.
    """
    from universal_registry.kernel.yamlreader import read_documents  # lazily: ruamel costs 40 ms

    return read_documents(check_text(text, limits), limits)


# --- what both languages share --------------------------------------------------------------------------------------


def check_text(data: bytes | str, limits: Limits) -> bytes:
    """The text as bytes within the body limit, without a byte order mark."""
    raw = _encode(data) if isinstance(data, str) else data if type(data) is bytes else bytes(data)
    if len(raw) > limits.body:
        raise TooLarge(f"the text is {len(raw)} bytes long", hint=f"at most {limits.body} bytes", limit=limits.body)
    if raw.startswith(_BOM):
        raise Malformed("the text begins with a byte order mark", hint="save it as UTF-8 without BOM")
    return raw


def decode(raw: bytes, first_line: int = 1) -> str:
    """UTF-8 to text, or Malformed with the place of the first bad byte."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + first_line
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"not UTF-8: byte 0x{raw[error.start]:02x} at line {line}, byte {column}"
        raise Malformed(message, hint="save the text as UTF-8", line=line, column=column) from None


def check_string(text: str, limits: Limits, where: str) -> None:
    """Refuse a NUL, a lone surrogate and what is longer than the limit. `where` names the place for the message."""
    if "\0" in text:
        raise Malformed(f"{where} holds a NUL character", hint="remove \\u0000")
    if len(text) * 4 > limits.string and len(text.encode(errors="surrogatepass")) > limits.string:
        raise TooLarge(f"{where} is longer than {limits.string} bytes", limit=limits.string)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise Malformed(
            f"{where} holds the lone surrogate \\u{code:04x}", hint="surrogates come in pairs, high then low"
        ) from None


def integer(text: str, base: int = 10) -> int:
    """An integer within +-2^53, or Malformed."""
    if len(text) <= 24 and -SAFE_INTEGER <= (value := int(text, base)) <= SAFE_INTEGER:
        return value
    raise Malformed(f"integer {brief(text)} is beyond +-2^53", hint="send it as a string")


def real(text: str) -> float:
    """A finite double, or Malformed."""
    if len(text) <= _NUMBER_CHARS and math.isfinite(value := float(text)):
        return value
    raise Malformed(f"number {brief(text)} does not fit a double", hint="send it as a string")


def brief(text: str, size: int = 40) -> str:
    """A value as an error message shows it: printable, and short."""
    shown = text if len(text) <= size else f"{text[: size - 12]}...({len(text)} characters)"
    return ascii(shown)[1:-1] if not shown.isprintable() else shown


def too_deep(limits: Limits) -> TooLarge:
    """The error for a text nested beyond the limit."""
    return TooLarge(f"nested deeper than {limits.depth} levels", hint="flatten the value", limit=limits.depth)


def too_many_keys(limits: Limits) -> TooLarge:
    """The error for a document with too many keys."""
    return TooLarge(f"more than {limits.keys} keys", hint="split the document", limit=limits.keys)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Malformed(
            f"the text holds the lone surrogate \\u{ord(text[error.start]):04x} at character {error.start}",
            hint="the text must be UTF-8",
        ) from None


# --- JSON -----------------------------------------------------------------------------------------------------------


def _load(raw: bytes, limits: Limits, line: int) -> Any:
    if raw.count(b"{") + raw.count(b"[") > limits.depth:
        _check_depth(raw, limits)
    # A text shorter than the longest string needs no look at its strings' lengths; orjson itself refuses bad UTF-8,
    # lone surrogates, NaN, infinities and raw control characters.
    if len(raw) <= limits.string and b"\\u0000" not in raw:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return _load_exactly(raw, limits, line)
        # Each key of the text ends with a quote and a colon, so more ends than keys means that a key was there twice,
        # or that a string looks like one. Fewer is impossible.
        keys = _census(value)
        if keys == len(_KEY_ENDS.findall(raw)) and keys <= limits.keys:
            return value
    return _load_exactly(raw, limits, line)


def _census(value: Any) -> int:
    """How many keys a value has; -1 when a number is in it that may have been rounded."""
    if type(value) is not dict:
        value = [value]
        keys = 0
        todo = value
    else:
        keys = len(value)
        todo = list(value.values())
    for item in todo:  # grows while it is walked
        kind = type(item)
        if kind is str:
            continue
        if kind is dict:
            keys += len(item)
            todo.extend(item.values())
        elif kind is list:
            todo.extend(item)
        elif (kind is int or kind is float) and not -SAFE_INTEGER <= item <= SAFE_INTEGER:
            return -1
    return keys


def _check_depth(raw: bytes, limits: Limits) -> None:
    """Depth from the brackets outside of strings: each pass takes the innermost pairs away. Linear in the text."""
    brackets = _STRINGS.sub(b"", raw).translate(_FOLD, _NO_BRACKET)
    passes = 0
    while b"[]" in brackets:
        passes += 1
        if passes > limits.depth:
            raise too_deep(limits)
        brackets = brackets.replace(b"[]", b"")
    if passes + brackets.count(b"[") > limits.depth:  # brackets never closed: the parser would still descend
        raise too_deep(limits)


def _load_exactly(raw: bytes, limits: Limits, line: int) -> Any:
    text = decode(raw, line)
    if not text.strip(" \t\r\n"):
        raise Malformed("the text is empty", hint="send a JSON value, such as {}")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise too_deep(limits) from None
    except ValueError as error:
        raise _not_json(error, text, line) from None
    _check_tree(value, limits)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                shown = brief(key)
                raise Malformed(f'key "{shown}" appears twice in one object', hint="keep one of them", key=shown)
            seen.add(key)
    return result


def _constant(text: str) -> NoReturn:
    raise Malformed(f"{text} is not JSON", hint="send null, or a string")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=integer, parse_float=real, parse_constant=_constant)


def _not_json(error: ValueError, text: str, line: int) -> Malformed:
    position = getattr(error, "pos", 0)
    row = line + getattr(error, "lineno", 1) - 1
    column = getattr(error, "colno", 1)
    said = getattr(error, "msg", "not a value").lower().removesuffix(" at").removesuffix(" starting")
    char = text[position : position + 1]
    found = (
        f"found {char!r}" if char.isprintable() and char else f"found U+{ord(char):04X}" if char else "the text ends"
    )
    message = f"not JSON at line {row}, column {column}: {said}, {found}"
    return Malformed(message, hint=_HINTS.get(char), line=row, column=column)


def _check_tree(value: Any, limits: Limits) -> None:
    """What the parser let through and may not be: bad strings, too many keys. Iterative; names the path."""
    keys = 0
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        path, item = todo.pop()
        if isinstance(item, str):
            check_string(item, limits, f"the string at {path or 'the top'}")
        elif isinstance(item, dict):
            keys += len(item)
            if keys > limits.keys:
                raise too_many_keys(limits)
            for key, child in item.items():
                check_string(key, limits, f"a key of {path or 'the top object'}")
                todo.append((f"{path}.{brief(key)}" if path else brief(key), child))
        elif isinstance(item, list):
            todo.extend((f"{path}[{index}]", child) for index, child in enumerate(item))
