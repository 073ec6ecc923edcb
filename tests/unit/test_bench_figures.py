"""The bench's arithmetic: what it says of a figure must follow from the figure."""

from __future__ import annotations

import json
import math

import pytest

from bench.figures import Line, as_json, figure, percentile, table


def line(**changed: object) -> Line:
    given = {
        "part": "writes",
        "what": "16 writers",
        "ours": 50.0,
        "unit": "writes/s",
        "beside": "peer",
        "theirs": 100.0,
    }
    return Line(**{**given, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs", "bar", "less", "met"),
    [
        (50.0, 100.0, 0.5, False, True),
        (49.0, 100.0, 0.5, False, False),
        (50.0, 100.0, 0.5, True, True),
        (51.0, 100.0, 0.5, True, False),
        (50.0, 100.0, None, False, None),
        (50.0, None, 0.5, False, None),
        (50.0, 0.0, 0.5, False, None),
    ],
)
def test_a_line_is_met_by_its_ratio_alone(
    ours: float, theirs: float | None, bar: float | None, less: bool, met: bool | None
) -> None:
    assert line(ours=ours, theirs=theirs, bar=bar, less_is_better=less).is_met is met


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.81, 0.99, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0, 5.0]
    assert percentile([7.0], 0.5) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12345.6, "12,300"),
        (999.6, "1,000"),
        (64.04, "64.0"),
        (4.567, "4.57"),
        (0.0131, "0.0131"),
        (0.0, "0"),
        (None, "-"),
        (math.inf, "inf"),
    ],
)
def test_three_digits_count(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_the_table_has_a_heading_for_each_part_and_says_what_was_missed() -> None:
    shown = table(
        [line(bar=0.4), line(what="256 writers", bar=0.6), line(part="start", what="memory", theirs=None, note="idle")]
    ).splitlines()
    assert [each for each in shown if each.startswith("--")] == ["-- writes", "-- start"]
    assert shown[2].split() == ["16", "writers", "50.0", "writes/s", "peer", "100", "0.50", ">=", "0.4", "met"]
    assert shown[3].endswith(">= 0.6  MISSED")
    assert shown[5].split() == ["memory", "50.0", "writes/s", "peer", "-", "-", "(idle)"]
    assert len({each.index("writes/s") for each in shown if "writes/s" in each}) == 1, "columns stand under one another"


def test_the_json_has_what_the_table_has() -> None:
    told = json.loads(json.dumps(as_json(line(bar=0.4))))
    assert told["ratio"] == 0.5
    assert told["met"] is True
    assert told["ours"] == 50.0
