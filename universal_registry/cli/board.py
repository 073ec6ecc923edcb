"""What is seen while a command waits for targets: a row each; on a terminal they are redrawn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from universal_registry.cli.grid import escaped, terminal_width
from universal_registry.cli.targets import short_target
from universal_registry.kernel.grid import cut
from universal_registry.kernel.world import SystemWorld, World

_DONE = ("in_sync", "delivered")


class Board(Protocol):
    """Shown each look at a session."""

    def show(self, found: dict[str, Any]) -> None: ...


def board(note: Callable[[str], None]) -> Board:
    """Rows that are redrawn when standard error is a terminal; else a line whenever a target's state changes."""
    return Rows(SystemWorld()) if sys.stderr.isatty() else Lines(note)


class Lines:
    """A line whenever a target is somewhere else."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._said: dict[str, str] = {}

    def show(self, found: dict[str, Any]) -> None:
        for target in found["targets"]:
            reason = f": {target['reason']}" if target["reason"] else ""
            line = f"{short_target(target['target'])} {target['state'].replace('_', ' ')}{reason}"
            if self._said.get(target["target"]) != line:
                self._said[target["target"]] = line
                self._note(line)


class Rows:
    """A row for each target on standard error, drawn over itself; rows that do not fit the screen are counted."""

    def __init__(self, world: World, write: Callable[[str], object] = sys.stderr.write) -> None:
        self._world = world
        self._write = write
        self._began = world.monotonic()
        self._done: dict[str, float] = {}
        self._drawn = 0

    def show(self, found: dict[str, Any]) -> None:
        lines = [self._row(target, found.get("deliveries", ())) for target in found["targets"]]
        width, most = terminal_width() or 80, 20
        if len(lines) > most:
            lines = [*lines[:most], f"and {len(lines) - most} more"]
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._write(back + "".join(f"\r\x1b[K{cut(escaped(line), width - 1)}\n" for line in lines))
        sys.stderr.flush()
        self._drawn = len(lines)

    def _row(self, target: dict[str, Any], deliveries: Any) -> str:
        address, state = target["target"], target["state"]
        name = short_target(address)
        if state in _DONE:
            took = self._done.setdefault(address, self._world.monotonic() - self._began)
            return f"● {name}  {state.replace('_', ' ')} in {_short(took)}"
        row = next((each for each in deliveries if each["target"] == address and each["attempts"]), None)
        mark = "✕" if state in ("dead", "cancelled") else "○" if state == "held" else "◐"
        if row is not None and state not in ("dead", "cancelled", "held") and row["next_at"]:
            left = (datetime.fromisoformat(row["next_at"]) - self._world.now()).total_seconds()
            return f"{mark} {name}  retry {row['attempts']} in {_short(max(0.0, left))}: {row['reason']}"
        return f"{mark} {name}  {state.replace('_', ' ')}{': ' + target['reason'] if target['reason'] else ''}"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
