"""A session on one axis of time, in text."""

from __future__ import annotations

from typing import Any

import pytest

from universal_registry.cli.session_waterfall import lines

T = "2026-03-01T12:00:{:06.3f}Z"


def at(seconds: float) -> str:
    return T.format(seconds)


def delivery(state: str, *failed: float, came: tuple[float, float] | None = None, **more: Any) -> dict[str, Any]:
    """Planned at 0; attempts that took 0.1 s and failed; when the last one began and arrived."""
    attempts = [{"began_at": at(max(0.0, end - 0.1)), "ended_at": at(end)} for end in failed]
    began, arrived = (None, None) if came is None else map(at, came)
    same = {"delivery": "dlv_1", "state": state, "reason": "", "next_at": None, "planned_at": at(0)}
    return {**same, "attempts": attempts, "began_at": began, "arrived_at": arrived, **more}


def target(name: str, *deliveries: dict[str, Any], state: str = "delivered", reason: str = "") -> dict[str, Any]:
    return {"target": f"system/{name}", "state": state, "reason": reason, "deliveries": list(deliveries)}


def picture(*targets: dict[str, Any], limit: int | None = None, now: float = 20, more: int = 0) -> list[str]:
    found = {"session": "s1", "state": "running", "mode": "multicast", "source": "alias/default/gs"}
    found |= {"planned_at": at(0), "now": at(now), "more": more}
    return list(lines({**found, "targets": list(targets)}, limit))


def test_each_target_has_its_line_on_one_axis() -> None:
    waiting = delivery("waiting", 0, 5, 10, next_at=at(21.5), reason="answered 503")
    came = delivery("delivered", 5, came=(9, 10))
    title, first, second, third, axis, legend = picture(
        target("slow", came),
        target("bad", waiting, state="waiting"),
        target("dead", delivery("dead", 10, reason="422")),
    )
    assert title == "session s1 running: multicast of alias/default/gs"
    bar = first[6:66]
    assert (bar[0], bar[15], bar.index("█"), bar.index("●")) == ("|", "x", 27, 30)
    assert first[66:] == "  delivered in 10.0 s, after 1 failed attempt"
    assert [place for place, char in enumerate(second[6:66]) if char == "x"] == [0, 15, 30]
    assert second[65] == "─", "it is not over"
    assert second[66:] == "  attempt 4 in 1.5 s: answered 503"
    assert third[6:66].rstrip().endswith("x"), "given up, and over"
    assert third.endswith("  dead, after 1 failed attempt: 422")
    assert axis.split() == ["2026-03-01T12:00:00.000Z", "20.0", "s"]
    assert legend.startswith("| planned")


def test_the_axis_ends_with_the_last_that_was_delivered() -> None:
    _, line, axis, _ = picture(target("one", delivery("delivered", came=(0.02, 0.04))), now=50)
    assert line[5:65].rstrip()[-1] == "●"
    assert line.endswith("delivered in 40 ms")
    assert axis.endswith(" 40 ms")


@pytest.mark.parametrize("limit", [20, 40, 80, 200])
def test_it_fits_the_terminal(limit: int) -> None:
    shown = picture(
        target("a-name-that-is-longer-than-most" * 2, delivery("waiting", 1, reason="why " * 99)), limit=limit
    )
    assert max(map(len, shown[1:2])) <= limit


def test_targets_without_deliveries_and_moments_out_of_order() -> None:
    assert picture(target("one", state="in_sync"), target("two", state="held", reason="paused")) == [
        "session s1 running: multicast of alias/default/gs",
        f"one  {' ' * 60}  in sync",
        f"two  {' ' * 60}  held: paused",
    ]
    # A clock that went back: nothing is drawn beyond the axis.
    odd = delivery("delivered", 5, came=(3, 1), planned_at=at(9))
    assert len(picture(target("one", odd), now=2)[1][5:65]) == 60
    assert picture(target("one", odd), more=7)[2] == "and 7 more deliveries: ureg delivery ls --session s1"
