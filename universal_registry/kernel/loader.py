"""The one strict loader: every JSON or YAML text that enters the product passes here.

Accepted is what means the same to everyone: UTF-8 without a byte order mark, no key twice in one object, no NaN or
Infinity, no lone surrogate, no NUL, no integer that a double cannot hold, no depth beyond the limit.

JSON is read twice at most. The fast reading (orjson, which itself descends no further than 1,024 levels) is kept only
when cheap counts prove that it met none of the forbidden things; every doubt and every error goes to the exact reading
(stdlib json with hooks, the depth bounded before it begins), which finds the cause and names it. So the exact reading
alone decides what is refused.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import orjson

from universal_registry.kernel.errors import Malformed, RegistryError
from universal_registry.kernel.limits import (
    DEFAULT_LIMITS,
    SAFE_INTEGER,
    Limits,
    brief,
    check_string,
    check_text,
    decode,
    encode,
    integer,
    real,
    too_deep,
    too_many_keys,
)

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


def load_json(data: bytes | str, *, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of one JSON document. Raises Malformed or TooLarge and nothing else, whatever the bytes."""
    return _load(check_text(data, limits), limits, 1)


def load_ndjson(data: bytes | str | Iterable[bytes], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Any]:
    """The value of each non-blank line; `limits` hold for each line. `data` is the text, or an iterable of its lines.

    Errors come when the iterator reaches the line, and name it.
    """
    if isinstance(data, str):
        data = encode(data)
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


# --- JSON -----------------------------------------------------------------------------------------------------------


def _load(raw: bytes, limits: Limits, line: int) -> Any:
    # orjson itself refuses bad UTF-8, lone surrogates, NaN, infinities and raw control characters.
    if b"\\" not in raw or b"\\u0000" not in raw:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return _load_exactly(raw, limits, line)
        # Each key of the text ends with a quote and a colon, so more ends than keys means that a key was there twice,
        # or that a string looks like one. Fewer is impossible.
        keys = _census(value, limits, len(raw) > limits.string)
        if keys == len(_KEY_ENDS.findall(raw)) and keys <= limits.keys:
            return value
    return _load_exactly(raw, limits, line)


def _census(value: Any, limits: Limits, long: bool) -> int:
    """How many keys a value has; -1 when it may be too deep, or a number in it may have been rounded, or (looked for
    only in a `long` text) a string in it may be too long."""
    keys = 0
    most = limits.string // 4 if long else limits.body  # a character is at most four bytes
    level = [value]
    for _ in range(limits.depth):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                if len(item) > most:
                    return -1
            elif kind is dict:
                keys += len(item)
                below.extend(item.values())
                if long and any(len(key) > most for key in item):
                    return -1
            elif kind is list:
                below.extend(item)
            elif (kind is int or kind is float) and not -SAFE_INTEGER <= item <= SAFE_INTEGER:
                return -1
        if not below:
            return keys
        level = below
    return -1


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
    if raw.count(b"{") + raw.count(b"[") > limits.depth:
        _check_depth(raw, limits)
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
