"""How much of the change log may go, and for whom it waits."""

from __future__ import annotations

import pytest

from universal_registry.log.horizon import Horizon
from universal_registry.registry.retention import Limits, Reader, limit, plan

NOW = Horizon(values=20, lines=10)


@pytest.mark.parametrize(
    ("past_days", "revisions", "old", "found"),
    [(0, 0, 100, 0), (40, 0, 100, 40), (0, 30, 100, 70), (40, 30, 100, 70), (80, 30, 100, 80), (80, 30, 60, 60),
     (0, 500, 100, 0)],
)  # fmt: skip
def test_what_passes_either_limit_is_past_its_time_and_nothing_young_is(
    past_days: int, revisions: int, old: int, found: int
) -> None:
    assert limit(100, past_days, revisions, old) == found


@pytest.mark.parametrize(
    ("readers", "values", "lines", "waits"),
    [
        ([], 60, 40, []),
        ([("consumer a", 50, False)], 50, 40, ["consumer a"]),
        ([("consumer a", 30, False)], 60, 40, []),  # past its time: it is told
        ([("target a", 30, True)], 30, 30, ["target a"]),
        ([("target a", 30, True), ("consumer a", 35, False)], 30, 30, ["target a", "consumer a"]),
        ([("target a", 5, True)], 20, 10, ["target a"]),  # it never goes back
        ([("target a", 70, True), ("consumer a", 60, False)], 60, 40, []),
    ],
)
def test_values_wait_for_all_whose_lines_are_there_and_lines_for_targets(
    readers: list[tuple[str, int, bool]], values: int, lines: int, waits: list[str]
) -> None:
    found = plan(NOW, Limits(values=60, lines=40), [Reader(*each) for each in readers])
    assert (found.values, found.lines) == (values, lines)
    assert [each.name for each in found.kept_back] == waits


def test_a_line_never_goes_before_its_value() -> None:
    assert plan(NOW, Limits(values=30, lines=50), [])[:2] == (30, 30)
    assert plan(NOW, Limits(values=0, lines=50), [])[:2] == (20, 10)
