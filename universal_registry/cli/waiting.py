"""`--wait`: until each target of a session has it, or nothing more can be expected, or the time is over."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from universal_registry.cli.session import Session
from universal_registry.cli.targets import short_target
from universal_registry.client.http import quote
from universal_registry.kernel.errors import PartlyDelivered, Refused, RegistryError, TimedOut, UsageError

_DONE = frozenset({"in_sync", "delivered"})
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "ms": 0.001}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h|)", re.ASCII)
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.25
# Reasons that no time heals: somebody has to do something first.
_LASTING = ("no address", "paused", "no such target", "gone")


def seconds(text: str) -> float:
    """`30s`, `500ms`, `2m`, `1h` or a plain number of seconds. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--wait is {text!r:.40}", hint="such as 30s, 500ms or 2m")
    return float(match[1]) * _UNITS[match[2]]


def await_session(asked: Session, session_id: str, limit: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """The session once there is nothing to wait for, or when `limit` seconds are over. `tell` gets a line whenever a
    target changes."""
    until = time.monotonic() + limit
    pause, said = _FIRST_LOOK, dict[str, str]()
    while True:
        found: dict[str, Any] = asked.read(f"/v1/-/sessions/{quote(session_id)}")
        for target in found["targets"]:
            line = _line(target)
            if said.get(target["target"]) != line:
                said[target["target"]] = line
                tell(line)
        left = until - time.monotonic()
        if left <= 0 or all(is_final(target) for target in found["targets"]):
            return found
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LAST_LOOK)


def _line(target: dict[str, Any]) -> str:
    reason = f": {target['reason']}" if target["reason"] else ""
    return f"{short_target(target['target'])} {target['state'].replace('_', ' ')}{reason}"


def is_final(target: dict[str, Any]) -> bool:
    """Whether waiting on cannot change the state of a target."""
    if target["state"] == "held":
        return str(target["reason"]).startswith(_LASTING)
    return target["state"] in _DONE or target["state"] == "dead"


def verdict(found: dict[str, Any], limit: float) -> RegistryError | None:
    """What to tell of a session that was waited for; None when every target has it."""
    targets = found["targets"]
    behind = [target for target in targets if target["state"] not in _DONE]
    if not behind:
        return None
    names = ", ".join(short_target(target["target"]) for target in behind)
    why = next((str(target["reason"]) for target in behind if target["reason"]), "")
    hint = why or "it goes on; ureg session get " + str(found["session"])
    if len(behind) < len(targets):
        return PartlyDelivered(
            f"{len(targets) - len(behind)} of {len(targets)} targets have it; not: {names}", hint=hint
        )
    states = {target["state"] for target in behind}
    if states == {"held"}:
        return Refused(f"held: {names}", hint=hint)
    if states == {"dead"}:
        return RegistryError(f"given up: {names}", hint=hint)
    return TimedOut(f"not there after {limit:g} s: {names}", hint=hint)
