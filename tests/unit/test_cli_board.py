"""`--wait`: rows that are redrawn on a terminal, lines elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from universal_registry.cli.board import Lines, Rows
from universal_registry.kernel.world import SystemWorld


class Still(SystemWorld):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.start = SystemWorld().now()

    def now(self) -> Any:
        return self.start + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


def look(state: str, reason: str = "", **row: Any) -> dict[str, Any]:
    rows = [{"target": "system/b", "reason": "503", **row}] if row else []
    targets = [
        {"target": "system/a", "state": "delivered", "reason": ""},
        {"target": "system/b", "state": state, "reason": reason},
    ]
    return {"targets": targets, "deliveries": rows}


def test_a_line_is_told_once_for_each_state() -> None:
    told: list[str] = []
    lines = Lines(told.append)
    for state in ("waiting", "waiting", "delivered", "delivered"):
        lines.show(look(state, "503" if state == "waiting" else ""))
    assert told == ["a delivered", "b waiting: 503", "b delivered"]


def test_rows_are_drawn_over_themselves_and_count_time() -> None:
    world, written = Still(), list[str]()
    rows = Rows(world, written.append)
    world.passed = 0.012
    rows.show(look("waiting", "503", attempts=2, next_at=(world.start + timedelta(seconds=3.812)).isoformat()))
    assert "● a  delivered in 12 ms" in written[0]
    assert "◐ b  retry 2 in 3.8 s: 503" in written[0]
    assert not written[0].startswith("\x1b[2A")
    world.passed = 2.0
    rows.show(look("held", "breaker open until 12:04:31\x1b[2J"))
    assert written[1].startswith("\x1b[2A")
    assert "delivered in 12 ms" in written[1]
    assert "○ b  held: breaker open until 12:04:31\\x1b[2J" in written[1]
    rows.show(look("dead", "given up"))
    assert "✕ b  dead: given up" in written[2]


def test_more_rows_than_fit_are_counted() -> None:
    written: list[str] = []
    many = [{"target": f"system/{number}", "state": "waiting", "reason": ""} for number in range(100)]
    Rows(Still(), written.append).show({"targets": many})
    assert written[0].count("\n") == 21
    assert "and 80 more" in written[0]
