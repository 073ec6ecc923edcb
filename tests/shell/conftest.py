"""What the tests of the shell fronts share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fronts import Home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A registry with its daemon."""
    made = Home(tmp_path_factory.mktemp("fronts"))
    assert made.ureg("init").code == 0
    up = made.ureg("up")
    assert up.code == 0, up
    yield made
    assert made.ureg("down").code == 0
