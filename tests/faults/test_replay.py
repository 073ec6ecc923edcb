"""Recorded histories of eight concurrent clients, with kills, are strictly serialisable; broken stores are caught.

What is promised (docs/reference/http.md): every answer names the revision at which it ran.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pgserver
import pytest
from recording import CLIENTS, record
from replay import Call, Entry, violations

CHILD = [sys.executable, str(Path(__file__).with_name("child_replay.py"))]
SEED = int(os.environ.get("REGISTRY_TEST_SEED", "20262"))


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """The environment that makes a daemon use the engine."""
    if request.param == "sqlite":
        return {}
    request.getfixturevalue("postgres")
    return pgserver.RUNNING[0].environment(pgserver.database_of(tmp_path).name)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_concurrent_clients_see_one_order(tmp_path: Path, settings: Mapping[str, str]) -> None:
    recorded = record(tmp_path / "home", [*CHILD, "sound"], seed=SEED, kills=3, calls=2400, settings=settings)
    print(recorded[1:])
    assert recorded.violations == []
    assert {call.client for call in recorded.calls} == set(range(CLIENTS))
    assert recorded.revisions > 300
    kinds = {(call.verb, call.refused) for call in recorded.calls if call.ended is not None}
    assert {("put", "precondition-failed"), ("delete", "not-found"), ("patch", "invalid"), ("patch", "")} <= kinds
    # Without kills in the middle of writes, neither of these would have been put to the test.
    assert recorded.unanswered + recorded.replayed > 0


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("broken", "wanted"),
    [
        ("sequence", r"\d+ answers do not fit their place in the order"),
        ("stale-cache", r"\d+ answers do not fit their place in the order: .*saw"),
        ("old-answers", r"\d+ answers ran before what had ended before they began"),
        ("torn-batch", r"\d+ writes have no revision, or another one"),
    ],
)
def test_a_broken_store_is_caught(tmp_path: Path, broken: str, wanted: str) -> None:
    recorded = record(tmp_path / "home", [*CHILD, broken], seed=SEED, kills=0, calls=800)
    print(recorded[1:])
    assert [each for each in recorded.violations if re.match(wanted, each)], recorded.violations


# --- the checker itself, on histories made by hand --------------------------------------------------------------------


def put(
    revision: int | None, name: str, began: float, ended: float | None, generation: int = 1, **more: object
) -> Call:
    command = f"w{revision}"
    effect = "created" if generation == 1 else "updated"
    call = Call(
        0, "put", (name,), began, ended, id=command, commands={name: command}, revision=revision,
        effects={name: effect}, seen={name: Entry(command, revision or 0, generation)},
    )  # fmt: skip
    return replace(call, **more)  # type: ignore[arg-type]


def get(revision: int, name: str, began: float, ended: float, seen: Entry | None) -> Call:
    return Call(1, "get", (name,), began, ended, revision=revision, seen={name: seen} if seen else {})


FIRST, SECOND = put(1, "a", 0, 1), put(2, "a", 2, 3, generation=2)
LOG = {1: "w1", 2: "w2"}


def test_a_sound_history_passes() -> None:
    reads = [get(0, "a", 0, 1, None), get(1, "a", 0.5, 2.5, Entry("w1", 1, 1)), get(2, "a", 3, 4, Entry("w2", 2, 2))]
    assert violations([FIRST, SECOND, *reads], LOG) == []


@pytest.mark.parametrize(
    ("calls", "log", "told"),
    [
        ([FIRST, SECOND, get(2, "a", 5, 6, Entry("w1", 1, 1))], LOG, "saw a as"),
        ([FIRST, SECOND, get(1, "a", 5, 6, Entry("w1", 1, 1))], LOG, "ran before what had ended"),
        ([FIRST, SECOND, get(3, "a", 5, 6, Entry("w2", 2, 2))], LOG, "no such revision"),
        ([FIRST, SECOND], {1: "w1"}, "have no revision"),
        ([FIRST, SECOND], {1: "w1", 2: "w2", 3: "w2"}, "have no revision, or another"),
        ([FIRST, SECOND], {1: "w1", 2: "w2", 3: "who"}, "made by no known write"),
        ([FIRST, put(1, "b", 0, 1)], {1: "w1"}, "given to two writes"),
        ([FIRST, replace(SECOND, effects={"a": "created"})], LOG, "should be updated"),
        ([FIRST, replace(SECOND, only_at=7)], LOG, "should have been refused: precondition-failed"),
        ([replace(FIRST, began=4, ended=5), SECOND], LOG, "ran before what had ended"),
        ([FIRST, replace(SECOND, ended=None, began=0.5, revision=None)], {1: "w1", 2: "w2", 3: "x"}, "no known write"),
    ],
)
def test_each_way_to_be_wrong_is_told(calls: list[Call], log: dict[int, str], told: str) -> None:
    assert any(told in each for each in violations(calls, log)), violations(calls, log)


def test_what_nobody_was_answered_may_or_may_not_be_done() -> None:
    lost = replace(SECOND, ended=None, revision=None, effects={}, seen={})
    assert violations([FIRST, lost], {1: "w1"}) == []
    assert violations([FIRST, lost, get(2, "a", 5, 6, Entry("w2", 2, 2))], LOG) == []
