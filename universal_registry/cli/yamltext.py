"""YAML that our strict loader reads back as the same value, and that people like to read."""

from __future__ import annotations

import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+=~-]*(?: [A-Za-z0-9_./@+=~-]+)*", re.ASCII)
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_LONGEST_KEY = 500
_INDENT = "  "


def yaml_text(value: Any) -> str:
    """The value as one document, ending with a line end."""
    if isinstance(value, dict | list) and value:
        return "\n".join(_lines(value, 0)) + "\n"
    return _scalar(value, 1) + "\n"


def _lines(value: Any, depth: int) -> list[str]:
    pad = _INDENT * depth
    lines: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            text = _quoted_or_plain(str(key))
            head = f"{pad}{text}:" if len(text) <= _LONGEST_KEY else f"{pad}? {text}\n{pad}:"
            lines += _entry(head, item, depth)
    else:
        for item in value:
            lines += _entry(f"{pad}-", item, depth)
    return lines


def _entry(head: str, item: Any, depth: int) -> list[str]:
    if not (isinstance(item, dict | list) and item):
        return [f"{head} {_scalar(item, depth + 1)}"]
    inner = _lines(item, depth + 1)
    if head.endswith("-"):
        # The first entry of an item stands beside its dash.
        return [f"{head} {inner[0][len(_INDENT) * (depth + 1) :]}", *inner[1:]]
    return [head, *inner]


def _scalar(value: Any, depth: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _block(value, depth) if _reads_best_as_block(value) else _quoted_or_plain(value)
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    import json

    return json.dumps(value)


def _reads_best_as_block(text: str) -> bool:
    return "\n" in text and text[0] not in " \n\t" and all(char == "\n" or char.isprintable() for char in text)


def _block(text: str, depth: int) -> str:
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    mark = "-" if ends == 0 else "" if ends == 1 else "+"
    pad = _INDENT * depth
    lines = [pad + line if line else "" for line in body.split("\n")]
    return "\n".join([f"|{mark}", *lines, *[""] * (ends - 1)])


def _quoted_or_plain(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    import json

    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in quoted)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
