"""YAML 1.2, strictly: from the parser's events to plain JSON data, without composing, aliases or constructors.

Only `kernel.loader.load_yaml` calls this; it is a module of its own so that ruamel is imported when YAML is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner

from universal_registry.kernel.errors import Malformed, RegistryError
from universal_registry.kernel.limits import (
    Limits,
    brief,
    check_string,
    decode,
    integer,
    real,
    too_deep,
    too_many_keys,
)

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MISSING = object()


def read_documents(raw: bytes, limits: Limits) -> list[Any]:
    """All documents with content. Raises Malformed or TooLarge, with line and column."""
    text = decode(raw)
    reader = _Reader(limits)
    for event in _events(text):
        try:
            reader.take(event)
        except RegistryError as error:
            raise _placed(error, event) from None
    return reader.documents


def _events(text: str) -> Iterator[Any]:
    """The parser's events, and its errors as ours."""
    parser = YAML(typ="safe", pure=True)
    parser.Scanner = _Scanner
    event: Any = None
    try:
        for event in parser.parse(text):
            yield event
    except YAMLError as error:
        raise _not_yaml(error, text) from None
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # The parser's own slips on texts that are no YAML, such as an escape beyond U+10FFFF.
        raise _placed(Malformed(f"not YAML: {brief(str(error), 80) or type(error).__name__}"), event) from None


class _Scanner(Scanner):
    """Refuses a tag at its first character: the parser's own reading of a long one takes quadratic time."""

    def fetch_tag(self) -> NoReturn:
        mark = self.reader.get_mark()
        raise Malformed(
            f"a tag (!) is not allowed, at line {mark.line + 1}, column {mark.column + 1}",
            hint="quote the value when it is a string",
            line=mark.line + 1,
            column=mark.column + 1,
        )


@dataclass(slots=True)
class _Level:
    """A collection being filled; `key` is the key that waits for its value."""

    items: dict[str, Any] | list[Any]
    key: Any = _MISSING


class _Reader:
    """Builds values from events, one `take` each."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.documents: list[Any] = []
        self._levels: list[_Level] = []
        self._keys = 0

    def take(self, event: Any) -> None:
        """One event. Errors are placed by the caller."""
        if isinstance(event, ScalarEvent):
            _check_node(event)
            self._scalar(event)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            _check_node(event)
            self._open({} if isinstance(event, MappingStartEvent) else [])
        elif isinstance(event, CollectionEndEvent):
            self._levels.pop()
        elif isinstance(event, AliasEvent):
            raise Malformed(f"alias *{brief(str(event.anchor))} is not allowed", hint="write the value out")
        elif isinstance(event, DocumentStartEvent):
            _check_directives(event)
            self._keys = 0

    def _open(self, items: dict[str, Any] | list[Any]) -> None:
        if len(self._levels) >= self.limits.depth:
            raise too_deep(self.limits)
        if self._wants_key():
            raise Malformed("a list or a mapping stands where a key must be", hint="keys are strings")
        self._place(items)
        self._levels.append(_Level(items))

    def _scalar(self, event: Any) -> None:
        plain = event.implicit[0] and not event.style
        text = _paired(event.value)
        if self._wants_key():
            self._key(text, plain)
            return
        if plain and text == "" and not self._levels:
            return  # a document without content, such as the one after a last "---"
        value = _resolve(text) if plain else text
        if isinstance(value, str):
            check_string(value, self.limits, "a string")
        self._place(value)

    def _key(self, text: str, plain: bool) -> None:
        if plain and text == "<<":
            raise Malformed("merge key << is not allowed", hint="write the values out")
        if plain and not isinstance(_resolve(text), str):
            raise Malformed(f"key {brief(text) or '(empty)'} is not a string", hint=f'quote it: "{brief(text)}"')
        check_string(text, self.limits, "a key")
        level = self._levels[-1]
        if text in level.items:
            raise Malformed(f'key "{brief(text)}" appears twice in one mapping', hint="keep one", key=brief(text))
        self._keys += 1
        if self._keys > self.limits.keys:
            raise too_many_keys(self.limits)
        level.key = text

    def _wants_key(self) -> bool:
        return bool(self._levels) and isinstance(self._levels[-1].items, dict) and self._levels[-1].key is _MISSING

    def _place(self, value: Any) -> None:
        if not self._levels:
            self.documents.append(value)
            return
        level = self._levels[-1]
        if isinstance(level.items, list):
            level.items.append(value)
        else:
            level.items[level.key] = value
            level.key = _MISSING


def _paired(text: str) -> str:
    """JSON writes what lies beyond U+FFFF as two escapes, and JSON is YAML: pairs become one character."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _check_node(event: Any) -> None:
    if event.anchor is not None:
        raise Malformed(f"anchor &{brief(str(event.anchor))} is not allowed", hint="write the value out")


def _check_directives(event: Any) -> None:
    if event.version is not None and tuple(event.version) != (1, 2):
        version = ".".join(str(part) for part in event.version)
        raise Malformed(f"YAML {brief(version)} is not read", hint="remove the %YAML line: texts are YAML 1.2")
    if event.tags:
        raise Malformed("a %TAG line is not allowed", hint="remove it")


def _resolve(text: str) -> Any:
    """A plain scalar by the core schema of YAML 1.2."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "-+.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        digits = text.lstrip("+-")
        if digits[0] == "0" and digits != "0":
            # Octal for a YAML 1.1 reader, decimal for a 1.2 one, often a code whose zeros matter: never guessed.
            raise Malformed(f"number {brief(text)} begins with a zero", hint=f'quote it: "{brief(text)}"')
        return integer(text)
    if _OCTAL.fullmatch(text):
        return integer(text[2:], 8)
    if _HEX.fullmatch(text):
        return integer(text[2:], 16)
    if _REAL.fullmatch(text):
        return real(text)
    if _NOT_FINITE.fullmatch(text):
        raise Malformed(f"{text} is not JSON data", hint="use null, or quote it")
    return text


def _placed(error: RegistryError, event: Any) -> RegistryError:
    mark = getattr(event, "start_mark", None)
    if mark is None or "line" in error.data:
        return error
    line, column = mark.line + 1, mark.column + 1
    message = f"{error.message}, at line {line}, column {column}"
    return type(error)(message, hint=error.hint, line=line, column=column, **error.data)


def _not_yaml(error: YAMLError, text: str) -> Malformed:
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line = before.count("\n") + 1
        code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "\0")
        return Malformed(f"not YAML: character U+{code:04X} is not allowed, at or after line {line}", line=line)
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, MarkedYAMLError) and mark is not None:
        line, column = mark.line + 1, mark.column + 1
        said = brief(str(error.problem or error.context or "cannot be read"), 120)
        hint = "indent with spaces, not tabs" if "\\t" in said else None
        return Malformed(f"not YAML at line {line}, column {column}: {said}", hint=hint, line=line, column=column)
    return Malformed(f"not YAML: {brief(str(error), 120)}")
