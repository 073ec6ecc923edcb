"""Kill -9 under write and delivery load: nothing acknowledged is lost, nothing to be delivered is lost (R1, R20).

With a protection taken away the same test must fail; the long form is `scripts/kill_test.py`. What a kill cannot show,
`PRAGMA synchronous=OFF` for one, needs power cuts: the kernel keeps the pages of a killed process.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from killing import trial

KILLS = 50
SEED = int(os.environ.get("REGISTRY_TEST_SEED", "20261"))
RESTART_SECONDS = 2.0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    figures = trial(tmp_path, kills=KILLS, seed=SEED)
    print(figures)
    assert figures.violations == []
    assert figures.acknowledged > KILLS
    assert figures.arrived > 20 * KILLS
    assert figures.restart_median < RESTART_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "wanted"),
    [
        ("answers-before-commit", r"\d+ acknowledged writes are lost"),
        ("moves-before-answer", r"\w+: \d+ deliveries are lost"),
    ],
    ids=["answers-before-commit", "moves-before-answer"],
)
def test_without_the_protection_it_fails(tmp_path: Path, broken: str, wanted: str) -> None:
    figures = trial(tmp_path, kills=6, seed=SEED, broken=broken)
    print(figures)
    assert [each for each in figures.violations if re.match(wanted, each)], figures
