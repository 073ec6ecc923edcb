"""Kill -9 under write and delivery load: nothing acknowledged is lost, nothing to be delivered is lost (R1, R20).

With a protection taken away the same test must fail; the long form is `scripts/kill_test.py`. What a kill cannot show,
`PRAGMA synchronous=OFF` for one, needs power cuts: the kernel keeps the pages of a killed process.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pgserver
import pytest
from killing import trial

KILLS = {"sqlite": 50, "postgresql": 12}
SEED = int(os.environ.get("REGISTRY_TEST_SEED", "20261"))
RESTART_SECONDS = 2.0


def server_of(engine: str, request: pytest.FixtureRequest) -> pgserver.Server | None:
    return request.getfixturevalue("postgres") if engine == "postgresql" else None


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("engine", KILLS)
def test_kills_lose_nothing(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = KILLS[engine]
    figures = trial(tmp_path, kills=kills, seed=SEED, server=server_of(engine, request))
    print(figures)
    assert figures.violations == []
    assert figures.acknowledged > kills
    assert figures.arrived > 20 * kills
    assert figures.restart_median < RESTART_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("engine", KILLS)
@pytest.mark.parametrize(
    ("broken", "wanted"),
    [
        ("answers-before-commit", r"\d+ acknowledged writes are lost"),
        ("moves-before-answer", r"\w+: \d+ deliveries are lost"),
    ],
    ids=["answers-before-commit", "moves-before-answer"],
)
def test_without_the_protection_it_fails(
    engine: str, tmp_path: Path, broken: str, wanted: str, request: pytest.FixtureRequest
) -> None:
    figures = trial(tmp_path, kills=6, seed=SEED, broken=broken, server=server_of(engine, request))
    print(figures)
    assert [each for each in figures.violations if re.match(wanted, each)], figures
