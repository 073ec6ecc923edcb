"""An agent that is killed at a named step: python -m tests.faults.child_agent FOLDER SCENE POINT."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.agents import Machine, item, plan_of
from universal_registry.agent.plan import Plan

WELL = ["grep", "-q", "ok"]
POINTS = ("begun", "drafted", "checked", "replaced", "reloaded", "kept")
BACK = ("undoing", "restored")


def scene(folder: Path, name: str) -> tuple[Plan, list[dict[str, Any]], list[dict[str, Any]]]:
    """What the machine allows, what it has, and what comes then."""
    at = str(folder / "root" / "x")
    more: dict[str, Any] = {"reload": ["true"]}
    if name == "unhealthy":
        more |= {"health": [*WELL, at], "health_within": 0}
    if name == "link":
        entry = {"select": "kind=symlink", "path": at, "as": "link", **more}
        return (
            plan_of(folder, {"e": {**entry, "path": str(folder / "root" / "{name}")}}),
            [item("symlink", "x", 1, target="one")],
            [item("symlink", "x", 2, target="two")],
        )
    if name == "members":
        entry = {"select": "kind=tool", "path": at, "as": "members", **more}
        tools = [item("tool", "git", revision, command=f"git-mcp {revision}") for revision in (1, 2)]
        return plan_of(folder, {"e": entry}), tools[:1], [*tools[1:], item("tool", "more", 3, url="http://127.0.0.1:9")]
    form = "block" if name == "block" else "file"
    plan = plan_of(folder, {"e": {"select": "kind=config_file", "path": at, "as": form, "check": ["true"], **more}})
    old = [item("config_file", "c", 1, content="ok old\n" * 1000)]
    new = {"first": "ok new\n", "unhealthy": "bad\n"}.get(name, "ok new\n") * 1000
    return plan, [] if name == "first" else old, [] if name == "gone" else [item("config_file", "c", 2, content=new)]


def main(folder: Path, name: str, point: str) -> None:
    """Do what comes, up to the point."""

    def reached(step: str) -> None:
        if step == point:
            os.kill(os.getpid(), signal.SIGKILL)

    plan, _, new = scene(folder, name)
    with Machine(folder, plan, reached=reached) as machine:
        machine.settle(*new)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
