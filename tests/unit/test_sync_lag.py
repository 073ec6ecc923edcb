"""How far behind a registry is, by the node at which the changes were made."""

from __future__ import annotations

import pytest

from universal_registry.sync.version import Vector, lag_of

A1, A2, B1 = "aaaaaaaa-00000001", "aaaaaaaa-00000002", "bbbbbbbb-00000001"


@pytest.mark.parametrize(
    ("ours", "there", "lag"),
    [
        ({}, {}, {}),
        ({A1: 5, B1: 7}, {A1: 5}, {"aaaaaaaa": 0, "bbbbbbbb": 0}),
        ({A1: 5}, {A1: 9, B1: 3}, {"aaaaaaaa": 4, "bbbbbbbb": 3}),
        ({A1: 500}, {A1: 500, A2: 502}, {"aaaaaaaa": 2}),
        ({A1: 500}, {A2: 400}, {"aaaaaaaa": 1}),
    ],
)
def test_lag(ours: Vector, there: Vector, lag: dict[str, int]) -> None:
    """A new origin of a node goes on where the last one ended; one of a restored node has begun lower."""
    assert lag_of(ours, there) == lag
