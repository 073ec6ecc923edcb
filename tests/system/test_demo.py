"""The demo, as a user runs it: it ends well, says what it saw, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo(tmp_path: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "universal_registry", "demo"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    said = done.stdout
    found = re.search(r"(\d+) records: (.*)", said)
    assert found is not None, said
    assert int(found[1]) > 100
    assert len(found[2].split(",")) >= 5
    delivered = re.search(r"(\d+)/(\d+) delivered and their signatures verified", said)
    assert delivered is not None
    assert int(delivered[1]) >= 5 * int(found[1])
    for sentence in (
        "breaker open, nothing is dropped",
        "with 14 unsent",
        "still 14",
        "the edits of gs in order; breaker closed",
        "lost 0",
    ):
        assert sentence in said, said
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""
