"""What a word of the command line stands for when it is `-` (standard input) or `@FILE`. Bounded, and UTF-8 only."""

from __future__ import annotations

import os
import stat
import sys
from typing import Any

from universal_registry.kernel.errors import Malformed, NotFound, RegistryError, TooLarge, UsageError
from universal_registry.kernel.limits import DEFAULT_LIMITS, size_text

LIMIT = 16 << 20
"""The most that is read of one file: what one request may carry."""
RECORD_LIMIT = DEFAULT_LIMITS.body
"""The most that is read of what becomes one record, or a part of it."""


def read_input(limit: int = LIMIT) -> bytes:
    """All of standard input. Raises UsageError when that is a keyboard that nobody was told of, TooLarge."""
    stream = sys.stdin.buffer if sys.stdin is not None else None
    if stream is None:
        return b""
    if stream.isatty():
        from universal_registry.cli.session import note

        note("reading standard input; Ctrl-D ends it")
    return _bounded(stream.read(limit + 1), "standard input", limit)


def read_file(path: str, limit: int = LIMIT) -> bytes:
    """All of a plain file, or of a pipe that a shell made (`<(...)`). Raises NotFound, UsageError, TooLarge."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise UsageError(f"{path} is a folder", hint="a file is wanted here")
            return _bounded(file.read(limit + 1), path, limit)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def unreadable(path: str, error: Exception) -> RegistryError:
    """The error for a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return NotFound(f"there is no file {path!r:.200}")
    why = getattr(error, "strerror", None) or str(error)
    return UsageError(f"{path!r:.200} cannot be read: {why}")


def _bounded(data: bytes, what: str, limit: int) -> bytes:
    if len(data) > limit:
        one = f"the most that one record takes; of that {size_text(DEFAULT_LIMITS.string)} in one text"
        raise TooLarge(f"{what} is larger than {size_text(limit)}", hint="split it" if limit == LIMIT else one)
    return data


def text_of(data: bytes, what: str) -> str:
    """The bytes as text. Raises Malformed naming where they come from."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None


def value_text(word: str) -> str:
    """The text that a word stands for: standard input for `-`, a file for `@FILE`, else itself."""
    if word == "-":
        return text_of(read_input(RECORD_LIMIT), "standard input")
    if word.startswith("@") and len(word) > 1:
        return text_of(read_file(word[1:], RECORD_LIMIT), word[1:])
    return word


def json_of(word: str, what: str) -> Any:
    """The JSON value that a word, a file or standard input holds, read strictly."""
    from universal_registry.kernel.loader import load_json

    try:
        return load_json(value_text(word))
    except (Malformed, TooLarge) as error:
        raise type(error)(f"{what}: {error.message}", hint=error.hint) from None


def secret_text(word: str, what: str) -> str:
    """A secret, best given as @FILE or `-`. Raises UsageError when it is empty."""
    text = value_text(word).strip()
    if not text:
        raise UsageError(f"the {what} is empty", hint=f"give it as @FILE, or as - on standard input: --{what} -")
    return text
