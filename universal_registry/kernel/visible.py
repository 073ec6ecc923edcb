"""Text in one line, with nothing in it that could steer a terminal or end a line."""

from __future__ import annotations

import unicodedata

_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Marks that reorder a line or show nothing; joiners stay, emoji are made with them.
_STEERING = frozenset(map(chr, (0x61C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)))


def escaped(text: str) -> str:
    """The text in one line, with control characters, bidi marks and lone surrogates written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) for char in text)


def _escape(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char in _STEERING or unicodedata.category(char) in ("Cc", "Cs"):
        return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
    return char
