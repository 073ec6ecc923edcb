"""What a text may hold, whichever language it is in: the limits of the strict loader, and how their passing is said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from universal_registry.kernel.errors import Malformed, TooLarge

SAFE_INTEGER = 1 << 53
"""Integers up to this, either sign, are exact in every language's double."""

_NUMBER_CHARS = 400
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may hold. `body` and `string` in bytes of UTF-8; `keys` over all objects; `depth` in levels."""

    body: int = 1 << 20
    depth: int = 64
    keys: int = 10_000
    string: int = 256 << 10


DEFAULT_LIMITS = Limits()


def size_text(count: int) -> str:
    """A number of bytes as people read it: `1 MiB`, `256 KiB`, or as it is where it is no whole number of them."""
    for unit, shift in (("MiB", 20), ("KiB", 10)):
        if count >> shift and not count % (1 << shift):
            return f"{count >> shift} {unit}"
    return f"{count} bytes"


def check_text(data: bytes | str, limits: Limits) -> bytes:
    """The text as bytes within the body limit, without a byte order mark."""
    raw = encode(data) if isinstance(data, str) else data if type(data) is bytes else bytes(data)
    if len(raw) > limits.body:
        hint = f"at most {size_text(limits.body)}"
        raise TooLarge(f"the text is {len(raw)} bytes long", hint=hint, limit=limits.body)
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
        hint = f"at most {size_text(limits.string)}"
        raise TooLarge(f"{where} is longer than one text may be", hint=hint, limit=limits.string)
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


def encode(text: str) -> bytes:
    """Text to UTF-8, or Malformed for a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Malformed(
            f"the text holds the lone surrogate \\u{ord(text[error.start]):04x} at character {error.start}",
            hint="the text must be UTF-8",
        ) from None
