"""A registry that the program of an earlier commit has made and used goes on with this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)


def ureg(root: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(home.parent),
        "REGISTRY_HOME": str(home),
        "REGISTRY_PYTHON": sys.executable,
        "REGISTRY_LISTEN": "127.0.0.1:0",
    }
    return subprocess.run(
        ["sh", str(root / "ureg"), *words], env=given, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.fixture(params=["HEAD", "HEAD~1"])
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkout of that commit."""
    if shutil.which("git") is None or git("rev-parse", "--verify", request.param).returncode != 0:
        pytest.skip(f"there is no {request.param} here: no git, or no history")
    root = tmp_path / "earlier"
    root.mkdir()
    archive = git("archive", request.param, "universal_registry", "scripts", "ureg", "run_registry.sh", "config.py")
    subprocess.run(["tar", "-x", "-C", str(root)], input=archive.stdout, check=True)
    compile_ = [sys.executable, "-m", "universal_registry.registry.compile"]
    subprocess.run(compile_, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=True, capture_output=True)
    return root


@pytest.mark.slow
def test_records_places_of_targets_and_the_chain_survive(earlier: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for words in (
        ("init",),
        ("set", "alias", "gs", "command=git status"),
        ("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias"),
        ("set", "alias", "ll", "command=ls -l"),
    ):
        done = ureg(earlier, home, *words)
        assert done.returncode == 0, (words, done.stderr)
    was = ureg(earlier, home, "get", "alias", "-o", "tsv").stdout
    assert "git status" in was

    done = ureg(ROOT, home, "up")  # brings the databases up to date
    assert done.returncode == 0, done.stderr
    try:
        assert ureg(ROOT, home, "get", "alias", "-o", "tsv").stdout == was
        where = ureg(ROOT, home, "where", "gs")
        assert "mine" in where.stdout, where.stderr
        assert ureg(ROOT, home, "set", "alias", "gs", "command=git status -sb").returncode == 0
    finally:
        ureg(ROOT, home, "down")
    checked = ureg(ROOT, home, "db", "check")
    assert checked.returncode == 0, checked.stderr
    verified = ureg(ROOT, home, "audit", "verify")
    assert verified.returncode == 0, verified.stderr

    back = ureg(earlier, home, "get", "alias", "gs")  # the earlier one knows the stores still, or says that it does not
    assert back.returncode in (0, 5), back.stderr
    assert back.returncode == 0 or ("knows up to" in back.stderr and len(back.stderr.splitlines()) == 1)
