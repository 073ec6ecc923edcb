"""What a record keeps of its own when it becomes what another one is: its secrets, wherever in it they stand. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from universal_registry.cli.output import Item


def with_own_secrets(spec: Item, own: Item | None, lacking: list[str]) -> Item:
    """The one spec with the secrets of the other (`own`; as answers show them) in place of its own, those that it has
    none of included. `lacking` gets the path of each secret that only the first has."""
    made: Item = _merged(spec, own or {}, "", lacking)
    return made


def _merged(value: Any, own: Any, path: str, lacking: list[str]) -> Any:
    parts = isinstance(value, Mapping) and not _is_secret(value)
    if _is_secret(own) or (not parts and _secrets_of(own) is not None):
        return own  # entries of a list have no names to tell them by, so one that holds a secret stays whole
    if not parts:
        if _secrets_of(value) is not None:
            lacking.append(path)
        return value
    there = own if isinstance(own, Mapping) else {}
    made = {}
    for name, each in value.items():
        made[name] = _merged(each, there.get(name), f"{path}.{name}" if path else name, lacking)
    return {name: kept for name, each in there.items() if (kept := _secrets_of(each)) is not None} | made


def _secrets_of(value: Any) -> Any:
    """What of it is secret, in its place; a list as a whole. None: nothing."""
    if _is_secret(value):
        return value
    if isinstance(value, Mapping):
        found = {name: kept for name, each in value.items() if (kept := _secrets_of(each)) is not None}
        return found or None
    if isinstance(value, list) and any(_secrets_of(each) is not None for each in value):
        return value
    return None


def _is_secret(value: Any) -> bool:
    return isinstance(value, Mapping) and "$secret" in value
