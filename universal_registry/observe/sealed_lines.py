"""Log lines whose fields are sealed: what anybody may read stays (time, level, event, part), all else is one value."""

from __future__ import annotations

from typing import Any

import orjson

from universal_registry.kernel.errors import Corrupt
from universal_registry.security.cipher import Box

PLAIN = ("ts", "level", "event", "part")
_CONTEXT = "log\nfields"


def sealed_line(line: dict[str, Any], box: Box) -> dict[str, Any]:
    """The line with its fields in `sealed`; one that has none stays as it is."""
    fields = {name: value for name, value in line.items() if name not in PLAIN}
    if not fields:
        return line
    sealed = box.seal(orjson.dumps(fields, default=str), _CONTEXT)
    return {**{name: line[name] for name in PLAIN if name in line}, "sealed": sealed}


def opened_line(text: bytes, box: Box) -> str:
    """The line as it would be without sealing. What is no sealed line of ours, or does not open, stays as it is."""
    shown = text.decode("utf-8", "replace")
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        return shown
    if not isinstance(line, dict) or not isinstance(line.get("sealed"), str):
        return shown
    try:
        fields = orjson.loads(box.open(line.pop("sealed"), _CONTEXT))
    except Corrupt:
        return shown
    return orjson.dumps({**line, **fields}).decode() + ("\n" if text.endswith(b"\n") else "")
