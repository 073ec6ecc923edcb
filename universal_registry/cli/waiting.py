"""`--wait`: until the targets of a session have it, or nothing more can be expected, or the time is over."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Any, NamedTuple

from universal_registry.cli.board import Board
from universal_registry.cli.session import Session
from universal_registry.cli.targets import short_target
from universal_registry.client.http import quote
from universal_registry.kernel.errors import PartlyDelivered, Refused, RegistryError, TimedOut, UsageError

DEFAULT = "30s"
_DONE = frozenset({"in_sync", "delivered"})
_ENDED = frozenset({"dead", "cancelled", "planned"})
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "ms": 0.001}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h|d|)", re.ASCII)
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.25
# Reasons that no time heals: somebody has to do something first.
_LASTING = ("no address", "paused", "no such target", "gone", "stopped", "disabled")


class Wait(NamedTuple):
    """How long to wait, and for whom: all targets, or any one of them."""

    seconds: float
    any: bool = False


def wait_for(text: str | None) -> Wait | None:
    """`--wait`: a time, `all` or `any`, or both as in `any,10s`. Raises UsageError."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    whom = [word for word in words if word in ("all", "any")]
    times = [word for word in words if word not in ("all", "any")]
    if len(whom) > 1 or len(times) > 1:
        raise UsageError(f"--wait is {text!r:.40}", hint="such as 30s, any, or any,30s")
    return Wait(seconds(times[0] if times else DEFAULT), whom == ["any"])


def seconds(text: str, option: str = "--wait") -> float:
    """`30s`, `500ms`, `2m`, `1h`, `7d` or a plain number of seconds. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} is {text!r:.40}", hint="such as 30s, 500ms or 2m")
    return float(match[1]) * _UNITS[match[2]]


def await_session(asked: Session, session_id: str, wait: Wait, board: Board) -> dict[str, Any]:
    """The session once there is nothing to wait for, or when the time is over. The board is shown each look."""
    until = time.monotonic() + wait.seconds
    pause = _FIRST_LOOK
    while True:
        found: dict[str, Any] = asked.read(f"/v1/-/sessions/{quote(session_id)}")
        board.show(found)
        left = until - time.monotonic()
        if left <= 0 or _is_over(found, wait):
            return found
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LAST_LOOK)


def _is_over(found: dict[str, Any], wait: Wait) -> bool:
    targets = found["targets"]
    enough = wait.any and any(target["state"] in _DONE for target in targets)
    return enough or all(is_final(target) for target in targets)


def is_final(target: dict[str, Any]) -> bool:
    """Whether waiting on cannot change the state of a target."""
    if target["state"] == "held":
        return str(target["reason"]).startswith(_LASTING)
    return target["state"] in _DONE or target["state"] in _ENDED


def verdict(found: dict[str, Any], wait: Wait) -> RegistryError | None:
    """What to tell of a session that was waited for; None when every target has it, or any where that is enough."""
    targets = found["targets"]
    behind = [target for target in targets if target["state"] not in _DONE]
    if not behind or (wait.any and len(behind) < len(targets)):
        return None
    names = ", ".join(short_target(target["target"]) for target in behind)
    why = next((str(target["reason"]) for target in behind if target["reason"]), "")
    hint = why or "it goes on; ureg session get " + str(found["session"])
    if len(behind) < len(targets):
        return PartlyDelivered(
            f"{len(targets) - len(behind)} of {len(targets)} targets have it; not: {names}", hint=hint
        )
    states = {target["state"] for target in behind}
    if states <= {"held", "planned"}:
        return Refused(f"held: {names}", hint=hint)
    if not all(is_final(target) for target in behind):
        return TimedOut(f"not there after {wait.seconds:g} s: {names}", hint=hint)
    if "dead" in states:
        return RegistryError(f"given up: {names}", hint=hint)
    return Refused(f"cancelled: {names}", hint=hint)


def stragglers(found: dict[str, Any]) -> str:
    """Who has it and who has not, in one line: `2 delivered, 1 waiting (c)`."""
    states = Counter(str(target["state"]).replace("_", " ") for target in found["targets"])
    behind = [short_target(target["target"]) for target in found["targets"] if target["state"] not in _DONE]
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{counts} ({', '.join(behind)})" if behind else counts
