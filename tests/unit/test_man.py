"""The manual pages that scripts/man.py writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from universal_registry.cli.commands import ENTRIES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "scripts" / "man.py", folder / "new"], check=True, timeout=60)
    return sorted((folder / "new").iterdir())


def test_each_command_has_a_page_with_its_options(pages: list[Path]) -> None:
    assert {page.name for page in pages} == {"ureg.1", *(f"ureg-{entry.name}.1" for entry in ENTRIES)}
    text = next(page for page in pages if page.name == "ureg-target.1").read_text()
    assert ".SH UREG TARGET PAUSE" in text
    assert ".B \\-\\-reason TEXT" in text


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="there is no mandoc here")
def test_mandoc_finds_nothing_wrong_with_them(pages: list[Path]) -> None:
    checked = subprocess.run(
        ["mandoc", "-Tlint", "-W", "style", *pages], capture_output=True, text=True, timeout=60, check=False
    )
    said = [
        line for line in checked.stdout.splitlines() if "missing date" not in line
    ]  # pages have no date of their own
    assert said == []
