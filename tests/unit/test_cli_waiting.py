"""`--wait`: how long, for what, and what is said when it did not come."""

from __future__ import annotations

from typing import Any

import pytest

from universal_registry.cli.waiting import Wait, is_final, seconds, stragglers, verdict, wait_for
from universal_registry.kernel.errors import PartlyDelivered, Refused, RegistryError, TimedOut, UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("7d", 604_800), ("7", 7), ("0.5", 0.5), ("0s", 0)],
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1e3", "nan", "٣s", "9999999", "1s2"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)


def target(state: str, reason: str = "") -> dict[str, Any]:
    return {"target": "system/t", "state": state, "reason": reason}


@pytest.mark.parametrize(
    ("state", "reason", "final"),
    [
        ("in_sync", "", True),
        ("delivered", "", True),
        ("dead", "x", True),
        ("waiting", "x", False),
        ("syncing", "", False),
        ("held", "no address: ureg target add t URL", True),
        ("held", "paused", True),
        ("held", "breaker open until 12:00", False),
    ],
)
def test_what_is_worth_waiting_for(state: str, reason: str, final: bool) -> None:
    assert is_final(target(state, reason)) is final


@pytest.mark.parametrize(
    ("states", "error", "exit_code"),
    [
        (["in_sync", "delivered"], None, 0),
        (["in_sync", "waiting"], PartlyDelivered, 8),
        (["delivered", "dead"], PartlyDelivered, 8),
        (["held"], Refused, 9),
        (["dead", "dead"], RegistryError, 1),
        (["waiting"], TimedOut, 124),
        (["dead", "syncing"], TimedOut, 124),
        (["dead", "cancelled"], RegistryError, 1),
    ],
)
def test_the_verdict(states: list[str], error: type[RegistryError] | None, exit_code: int) -> None:
    found = verdict({"session": "s", "targets": [target(state, "why") for state in states]}, Wait(5))
    assert (type(found) if found else None) is error
    assert (found.exit_code if found else 0) == exit_code


@pytest.mark.parametrize(
    ("states", "error"),
    [
        (["delivered", "waiting"], None),
        (["held", "in_sync"], None),
        (["waiting", "dead"], TimedOut),
        (["held", "held"], Refused),
        (["cancelled"], Refused),
        (["planned"], Refused),
    ],
)
def test_any_is_enough_where_that_was_asked(states: list[str], error: type[RegistryError] | None) -> None:
    found = verdict({"session": "s", "targets": [target(state, "why") for state in states]}, Wait(5, any=True))
    assert (type(found) if found else None) is error


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        (None, None),
        ("30s", Wait(30)),
        ("any", Wait(30, any=True)),
        ("all", Wait(30)),
        ("any,2m", Wait(120, any=True)),
        ("5, all", Wait(5)),
    ],
)
def test_what_wait_says(text: str | None, wait: Wait | None) -> None:
    assert wait_for(text) == wait


@pytest.mark.parametrize("text", ["soon", "any,all", "1s,2s", ""])
def test_what_wait_cannot_say(text: str) -> None:
    with pytest.raises(UsageError):
        wait_for(text)


def test_stragglers_are_named() -> None:
    found = {"targets": [target("delivered", ""), {**target("waiting", ""), "target": "system/late"}]}
    assert stragglers(found) == "1 delivered, 1 waiting (late)"


def test_a_chain_that_has_stopped_is_given_up_and_not_late() -> None:
    stopped = [target("dead", "rejected: 400"), target("held", "stopped: t was given up")]
    found = verdict({"session": "s", "targets": stopped}, Wait(5))
    assert found is not None
    assert (found.exit_code, found.message) == (1, "given up: t, t")
