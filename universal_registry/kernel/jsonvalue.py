"""Plain JSON data: the names of its types, and its one canonical form."""

from __future__ import annotations

from typing import Any

import orjson

type_name = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}


def canonical(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes. Digests and exports are built on it."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def name_of_type(value: Any) -> str:
    """The JSON name of a value's type, for messages."""
    return "null" if value is None else type_name.get(type(value), type(value).__name__)
