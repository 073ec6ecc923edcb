"""The site of docs/ builds, without a link that leads nowhere, and every page can be found in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, ROOT


def pages_in(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [page for entry in entries for page in pages_in(entry)]


def test_each_page_is_in_the_navigation_once() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    there = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.parent.name != "decisions"]
    assert sorted(pages_in(nav)) == sorted(there)


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True], ids=["as-it-is", "with-a-broken-link"])
def test_it_builds_and_a_broken_link_is_a_failure(tmp_path: Path, broken: bool) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    if broken:
        with (tmp_path / "docs" / "tutorial.md").open("a") as page:
            page.write("\n[nowhere](nowhere.md)\n")
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode != 0) == broken, done.stdout + done.stderr
    assert broken or (tmp_path / "build" / "site" / "how-to" / "python" / "index.html").is_file()
