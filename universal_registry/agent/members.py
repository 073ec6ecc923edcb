"""Members of ours in an object of a JSON file, beside those of others: the servers that an AI client starts. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection
from typing import Any

from universal_registry.agent.texts import Item
from universal_registry.kernel.errors import Invalid, Refused, RegistryError
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.limits import Limits
from universal_registry.kernel.loader import load_json

KIND = "tool"
_LIMITS = Limits(body=16 << 20, depth=200, keys=1_000_000, string=4 << 20)
_INDENT = re.compile(rb"^([ \t]+)\S", re.MULTILINE)


def member_of(item: Item) -> dict[str, Any]:
    """What a client's file says of a server: how it is started, or where it is. Raises Invalid for any other tool."""
    spec = item["spec"]
    if item["classification"] != "McpServer":
        raise Invalid(f"it is a {item['classification']}, no McpServer")
    if url := spec.get("url"):
        return {"type": "sse" if spec.get("transport") == "sse" else "http", "url": url}
    try:
        words = shlex.split(spec.get("command") or "")
    except ValueError as error:
        raise Invalid(f"its command cannot be read: {error}") from None
    if not words or "\0" in spec["command"]:
        raise Invalid("it has neither a command nor a url")
    return {"command": words[0], "args": words[1:]}


def ours(data: bytes, member: str, names: Collection[str]) -> bytes | None:
    """Those of the names that are there, with what they are; None: none of them. Raises Refused for a file that is not
    understood."""
    there = _members(_document(data), member)
    found = {name: there[name] for name in names if name in there}
    return canonical(found) if found else None


def merged(data: bytes, member: str, names: Collection[str], content: bytes | None) -> bytes:
    """The file with the members of `content` (as `ours` gives them) in the place of those names. Raises Refused."""
    document = _document(data)
    there = _members(document, member)
    wanted = {} if content is None else json.loads(content)
    kept = {name: wanted.get(name, value) for name, value in there.items() if name in wanted or name not in names}
    document[member] = kept | wanted
    indent = _INDENT.search(data)
    return json.dumps(document, ensure_ascii=False, indent=indent[1].decode() if indent else 2).encode() + b"\n"


def _document(data: bytes) -> dict[str, Any]:
    if not data.strip():
        return {}
    try:
        found = load_json(data, limits=_LIMITS)
    except RegistryError as error:
        raise Refused(f"the file is no JSON that could be kept: {error.message}") from None
    if not isinstance(found, dict):
        raise Refused("the file is no JSON object")
    return found


def _members(document: dict[str, Any], member: str) -> dict[str, Any]:
    found = document.get(member, {})
    if not isinstance(found, dict):
        raise Refused(f"{member} in the file is no object")
    return found
