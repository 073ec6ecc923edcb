"""Targets for whose sake the history is kept beyond its time: unsaid, nobody notices before the disk is full. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.registry.words import shell_word

GENERAL = "history: a target keeps it beyond its time"
"""What may be told to anybody."""


def kept_warnings(kept: Mapping[str, int], targets: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each target that keeps some. `kept`: reader (as observe/readers.py names it) -> revisions; `targets`:
    as in the status."""
    found = []
    for target in targets:
        revisions = kept.get(f"target {target['target']}", 0)
        if revisions:
            name = str(target["target"]).removeprefix(f"{SYSTEM_NAMESPACE}/")
            what = f"{revisions} revision{'' if revisions == 1 else 's'}"
            why, command = _stands(target, shell_word(name))
            found.append(f"history: target {name} keeps {what} beyond their time ({why}): {command}")
    return found


def _stands(target: Mapping[str, Any], name: str) -> tuple[str, str]:
    """What keeps the target from getting on, and the command that lets it."""
    lane = target["lane"] or {}
    if lane.get("paused"):
        return "it is paused", f"ureg target resume {name}"
    if lane.get("hold") in ("disabled", "gone"):
        return "it is disabled" if lane["hold"] == "disabled" else "it is gone", f"ureg target enable {name}"
    if not target["url"]:
        return "it has no address", f"ureg target add {name} URL"
    return "it does not get on", f"ureg delivery ls --target {name}"
