"""An agent that is killed at any step leaves the old or the new, whole; its next start brings it to the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents import Machine, item, plan_of, said
from tests.faults.child_agent import BACK, POINTS, scene

ROOT = Path(__file__).resolve().parents[2]
THEIRS = {"block": "# theirs", "members": '{"theme": "dark", "mcpServers": {"mine": {"command": "x"}}}'}
WHOLE = ("first", "next", "block", "members", "link", "gone")
CASES = [
    *((name, point) for name in WHOLE for point in POINTS),
    *(("unhealthy", point) for point in (*POINTS, *BACK)),
]


def stands(at: Path) -> bytes | None:
    return (
        None
        if not at.is_symlink() and not at.exists()
        else os.readlink(at).encode()
        if at.is_symlink()
        else at.read_bytes()
    )


@pytest.mark.parametrize(("name", "point"), CASES)
def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, name: str, point: str) -> None:
    at = tmp_path / "root" / "x"
    plan, old, new = scene(tmp_path, name)
    if name in THEIRS:
        at.write_text(THEIRS[name])
    with Machine(tmp_path, plan) as machine:
        machine.settle(*old)
    before = stands(at)
    words = [sys.executable, "-m", "tests.faults.child_agent", str(tmp_path), name, point]
    killed = subprocess.run(words, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed
    between = stands(at)
    with Machine(tmp_path, plan) as machine:
        [(state, why)] = said(machine.settle(*new)) or [("removed", "")]
        assert machine.state.pending is None
    after = stands(at)
    if name == "unhealthy":
        assert (state, "rolled back" in why) == ("received", True)
        assert after == before
        assert between in (before, b"bad\n" * 1000)
    else:
        assert state == ("removed" if name == "gone" else "running")
        assert after not in (before, b"")
        assert between in (before, after)
    assert set(os.listdir(at.parent)) <= {"x"}, "no draft is left"


def test_a_kill_while_a_command_runs(tmp_path: Path) -> None:
    """The command itself kills the agent that waits for it, once."""
    at = tmp_path / "root" / "x"
    once = f"[ -e {tmp_path}/killed ] || {{ : > {tmp_path}/killed; kill -9 $PPID; }}"
    for step in ("check", "reload", "health"):
        (tmp_path / "killed").unlink(missing_ok=True)
        entry = {"select": "kind=config_file", "path": str(at), step: ["sh", "-c", once]}
        plan = plan_of(tmp_path, {"e": entry})
        record = item("config_file", "c", content=f"by {step}\n")
        if (child := os.fork()) == 0:
            with Machine(tmp_path, plan) as machine:
                machine.settle(record)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        with Machine(tmp_path, plan) as machine:
            assert said(machine.settle(record)) == [("running", "")]
        assert at.read_text() == f"by {step}\n"
        assert os.listdir(at.parent) == ["x"]


def test_what_somebody_made_of_it_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    at = tmp_path / "root" / "x"
    for point in (*POINTS[:-1], *BACK):
        plan, old, new = scene(tmp_path, "unhealthy")
        for path in (at, tmp_path / "state" / "state.json"):
            path.unlink(missing_ok=True)
        with Machine(tmp_path, plan) as machine:
            machine.settle(*old)
        words = [sys.executable, "-m", "tests.faults.child_agent", str(tmp_path), "unhealthy", point]
        assert subprocess.run(words, cwd=ROOT, check=False, timeout=60).returncode == -signal.SIGKILL
        at.write_text("theirs")
        with Machine(tmp_path, plan) as machine:
            assert said(machine.settle(*new)) == [("held", "it was changed on this machine")], point
        assert at.read_text() == "theirs"
