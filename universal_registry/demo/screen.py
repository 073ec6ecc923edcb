"""What the demo prints: one line for each thing that happened, with the second at which it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from universal_registry.demo.receivers import Inbox
from universal_registry.kernel.world import World

_BAR = 24


class Screen:
    """Writes to a stream; rows are redrawn in place only where that is a terminal."""

    def __init__(self, out: TextIO, world: World) -> None:
        self._out = out
        self._world = world
        self._began = world.monotonic()
        self._drawn = 0
        self._is_terminal = out.isatty()

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return self._world.monotonic() - self._began

    def say(self, text: str) -> None:
        """A line, under what was drawn before."""
        self._drawn = 0
        self._out.write(f"{self.seconds:4.0f}s  {text}\n")
        self._out.flush()

    def rows(self, inboxes: Sequence[Inbox], wanted: int, *, last: bool = False) -> None:
        """One row a target: a bar, and how many records have come. Off a terminal only the last state is written."""
        if not (self._is_terminal or last):
            return
        if self._is_terminal and self._drawn:
            self._out.write(f"\x1b[{self._drawn}A")
        for inbox in inboxes:
            have = min(len(inbox.state), wanted)
            full = _BAR * have // max(wanted, 1)
            notes = f"  turned away {inbox.turned_away}, came again" if inbox.turned_away else ""
            bar = "#" * full + "." * (_BAR - full)
            end = "\x1b[K\n" if self._is_terminal else "\n"
            self._out.write(f"       {inbox.name:<8} [{bar}] {have}/{wanted}{notes}{end}")
        self._drawn = 0 if last else len(inboxes)
        self._out.flush()


def counted(counts: dict[str, int]) -> str:
    """`packages 812, services 63, ...`, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)
