"""The secrets that a promoted record keeps: those of the record that it becomes, never of the one it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from universal_registry.cli.own_secrets import with_own_secrets

MINE, ITS = {"$secret": "kept", "id": "mine"}, {"$secret": "kept", "id": "its"}


@pytest.mark.parametrize(
    ("spec", "own", "made", "lacking"),
    [
        ({"a": 1}, None, {"a": 1}, []),
        ({"a": 1, "p": MINE}, {"p": ITS}, {"a": 1, "p": ITS}, []),
        ({"a": 1}, {"a": 2, "p": ITS}, {"a": 1, "p": ITS}, []),
        ({"a": 1, "p": MINE}, None, {"a": 1, "p": MINE}, ["p"]),
        ({"d": {"s": MINE, "x": 1}}, {"d": {"s": ITS, "x": 2}}, {"d": {"s": ITS, "x": 1}}, []),
        ({"d": {"x": 1}}, {"d": {"s": ITS}}, {"d": {"x": 1, "s": ITS}}, []),
        ({}, {"d": {"s": ITS, "x": 2}, "e": 1}, {"d": {"s": ITS}}, []),
        ({"d": {"s": MINE}}, {"d": {"t": 1}}, {"d": {"s": MINE}}, ["d.s"]),
        ({"l": [{"s": MINE}]}, {"l": [{"s": ITS}]}, {"l": [{"s": ITS}]}, []),
        ({"l": [{"s": MINE}]}, {}, {"l": [{"s": MINE}]}, ["l"]),
        ({"l": [{"s": MINE}]}, {"l": [1]}, {"l": [{"s": MINE}]}, ["l"]),
        ({"l": [1]}, {"l": [{"s": ITS}]}, {"l": [{"s": ITS}]}, []),
        ({"d": None}, {"d": {"s": ITS, "x": 1}}, {"d": {"s": ITS, "x": 1}}, []),
        ({"p": "plain"}, {"p": ITS}, {"p": ITS}, []),
        ({"l": [1]}, {"l": [2]}, {"l": [1]}, []),
    ],
)
def test_secrets_are_of_the_record_that_it_becomes(spec: Any, own: Any, made: Any, lacking: list[str]) -> None:
    found: list[str] = []
    assert with_own_secrets(spec, own, found) == made
    assert found == lacking
