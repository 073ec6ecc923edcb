"""Every block of the README runs as it is written, in its order."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from universal_registry.client.listen import Receiver
from universal_registry.kernel.world import SystemWorld

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(block: str, home: Path) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "REGISTRY_HOME": str(home),
        "REGISTRY_LISTEN": "127.0.0.1:0",
        "REGISTRY_PYTHON": sys.executable,
    }
    return subprocess.run(
        ["sh", "-e", "-c", block], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
async def test_the_blocks_run_as_they_are_written(tmp_path: Path) -> None:
    assert len(BLOCKS) == 2
    receiver = Receiver(world=SystemWorld())
    _, port = await receiver.start("127.0.0.1", 0)
    loop_run = asyncio.to_thread
    try:
        for block in BLOCKS:
            done = await loop_run(run, block.replace(":9000", f":{port}"), tmp_path)
            assert done.returncode == 0, done.stderr + done.stdout
        assert "daemon stopped" in done.stdout
    finally:
        await loop_run(run, "./ureg down", tmp_path)
        await receiver.stop()
    assert "alias/default/gs" in receiver.latest(), "the alias that the README sets arrives"


def test_what_the_readme_points_at_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
