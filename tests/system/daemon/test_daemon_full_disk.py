"""A full disk: writes are refused in words, everything else goes on, and it recovers by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import StorageFull

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk"
)


def mount(*words: str) -> int:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount("-t", "tmpfs", "-o", "size=6m", "none", str(folder)) != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def big(client: Any, name: str) -> None:
    client.request("PUT", f"/v1/default/aliases/{name}", json={"spec": {"command": "x" * 3000}})


def fill(client: Any, acknowledged: list[str]) -> None:
    for number in range(5000):
        big(client, f"a{number}")
        acknowledged.append(f"a{number}")


def test_a_disk_that_fills_up_and_is_made_larger(
    start: Callable[..., Any], receiver: Any, wait_for: Callable[..., bool], disk: Path
) -> None:
    daemon = start(disk / "home", REGISTRY_METRICS_INTERVAL="0.05").ready()
    daemon.add_target(receiver.url)
    client, acknowledged = daemon.client(), []
    with pytest.raises(StorageFull, match=r"no space left for .*free some space"):
        fill(client, acknowledged)
    assert client.request("GET", "/v1/default/aliases/a0").status == 200
    failing = client.request("GET", "/health/db")
    assert failing.status == 503
    assert "no space left" in failing.json()["reason"]
    assert "no space left" in client.request("GET", "/health").json()["reason"]
    assert b"ureg_health_db 0.0" in client.request("GET", "/metrics").body
    assert client.request("GET", "/health/live").status == 200
    assert mount("-o", "remount,size=40m", str(disk)) == 0
    big(client, "after")
    assert client.request("GET", "/health").json()["status"] == "ok"
    receiver.await_all([*acknowledged, "after"])
    assert wait_for(lambda: daemon.metrics()["health.queue_depth"] == "0")
    assert client.request("GET", "/v1/-/status").json()["kinds"]["alias"] == len(acknowledged) + 1
    assert daemon.end() == 0


def test_a_start_on_a_full_disk_is_one_clear_line(ureg: Callable[..., Any], disk: Path) -> None:
    home = disk / "home"
    home.mkdir()
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while os.write(filler, bytes(4096)):
            pass
    os.close(filler)
    found = ureg(home, "serve")
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert "no space left" in line.lower()


def test_a_full_disk_without_a_daemon_is_not_taken_for_a_damaged_store(disk: Path) -> None:
    """SQLite cannot make the file beside a store that its readers share, and says only that there was an error."""
    home = disk / "home"

    def ureg(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-P", "-m", "universal_registry", *words]
        environ = {**os.environ, "REGISTRY_HOME": str(home), "REGISTRY_LISTEN": ""}
        return subprocess.run(line, env=environ, capture_output=True, text=True, check=False, timeout=60)

    assert ureg("init").returncode == 0
    assert ureg("set", "alias", "a", "command=true").returncode == 0
    fill_disk(disk)
    for words in (("get", "alias", "a"), ("set", "alias", "b", "command=true"), ("backup", str(home / "b"))):
        done = ureg(*words)
        assert done.returncode == 1
        assert "no space left" in done.stderr
        assert "free some space" in done.stderr
    found = {
        f"{each['group']}/{each['name']}": each["state"] for each in json.loads(ureg("doctor", "-o", "json").stdout)
    }
    assert found["home/space"] == "fail"
    assert found["stores/sound"] == "skip"
    assert found["keys/key"] != "fail"
    (disk / "filling").unlink()
    assert ureg("set", "alias", "b", "command=true").returncode == 0


def fill_disk(disk: Path) -> None:
    with suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
