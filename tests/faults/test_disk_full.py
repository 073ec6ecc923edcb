"""A disk that fills up (R5): writes are refused in one clear line, reads and health go on, and nothing is lost."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from judging import Evidence, Write, violations
from pressure import IN_FLIGHT, Daemon, Inbox, Progress, is_at_rest, lines_in, send, slow, wait_for

from universal_registry.client.http import Client
from universal_registry.client.listen import flaky
from universal_registry.kernel.errors import RegistryError, StorageFull

SIZE = "48m"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with little more room than the WALs of two stores may take."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def daemon(small: Path) -> Iterator[Daemon]:
    made = Daemon(small / "home", REGISTRY_METRICS_INTERVAL="0.05", REGISTRY_HEALTH_INTERVAL="0.1")
    made.start()
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def inboxes() -> Iterator[list[Inbox]]:
    progress = Progress()
    made = [Inbox("flaky", progress, behaviour=flaky(0.3)), Inbox("slow", progress, behaviour=slow(0.005))]
    yield made
    for inbox in made:
        inbox.close()


def fill(folder: Path) -> Path:
    """Take all that is free."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert os.statvfs(folder).f_bavail == 0
    return path


class Notes:
    """Writes of a test, with what was answered."""

    def __init__(self, client: Client) -> None:
        self.acknowledged: list[Write] = []
        self.refused: list[Write] = []
        self.errors: list[RegistryError] = []
        self._client = client
        self._numbers = itertools.count()

    def put(self) -> bool:
        """One more record, with some weight: whether it was taken."""
        number = next(self._numbers)
        commands = {f"a{number}": f"{number} " + "x" * 2000}
        try:
            answer = send(self._client, commands)
        except RegistryError as error:
            self.errors.append(error)
            self.refused.append(Write(commands))
            return False
        self.acknowledged.append(Write(commands, answer["revision"], answer["cursor"]))
        return True


def test_a_full_disk_stops_writes_and_nothing_else(daemon: Daemon, small: Path, inboxes: list[Inbox]) -> None:
    with daemon.client() as client:
        for inbox in inboxes:
            target = {"name": inbox.name, "url": inbox.url, "secret": inbox.secret, "select": "kind=alias"}
            client.request("POST", "/v1/-/targets", json=target)
        notes = Notes(client)
        assert all(notes.put() for _ in range(150))

        filler = fill(small)  # in the middle of deliveries
        while notes.put():
            pass
        full = notes.errors[0]
        assert isinstance(full, StorageFull), full
        assert (full.status, full.code) == (507, "storage-full")
        assert "no space left for" in full.message
        assert "\n" not in str(full)
        assert not notes.put(), "and again"

        assert client.request("GET", "/v1/default/aliases/a0").json()["name"] == "a0"
        assert client.request("GET", "/v1/default/aliases", query={"limit": 1000}).json()["items"]
        assert client.request("GET", "/health/live").status == 200
        for path in ("/health/db", "/health/ready"):
            assert client.request("GET", path).status == 503
        heard = {inbox.name: len(inbox.heard) for inbox in inboxes}
        assert all(heard.values())

        filler.unlink()
        wait_for(notes.put, "writable again")
        assert client.request("GET", "/health/db").status == 200
        assert client.request("GET", "/health/ready").status == 200
        assert all(notes.put() for _ in range(20))
        expected = lines_in(client)
        wait_for(lambda: all(inbox.arrived() >= expected for inbox in inboxes), "delivered")
        wait_for(lambda: is_at_rest(client), "settled")
    assert daemon.stop() == 0
    heard_all = {inbox.name: inbox.heard for inbox in inboxes}
    assert violations(daemon.environ, Evidence(notes.acknowledged, notes.refused, heard_all, 0, IN_FLIGHT)) == []


def test_health_says_that_it_is_full_and_that_it_is_no_longer(daemon: Daemon, small: Path) -> None:
    with daemon.client() as client:
        notes = Notes(client)
        assert notes.put()
        filler = fill(small)
        while notes.put():
            pass
        assert client.request("GET", "/health/db").status == 503
        filler.unlink()
        assert client.request("GET", "/health/db").status == 200, "without waiting for a write"
        assert notes.put()


def test_a_kill_on_a_full_disk_loses_nothing_either(daemon: Daemon, small: Path, inboxes: list[Inbox]) -> None:
    with daemon.client() as client:
        for inbox in inboxes:
            target = {"name": inbox.name, "url": inbox.url, "secret": inbox.secret, "select": "kind=alias"}
            client.request("POST", "/v1/-/targets", json=target)
        notes = Notes(client)
        assert all(notes.put() for _ in range(100))
        filler = fill(small)
        while notes.put():
            pass
    daemon.kill()
    daemon.spawn()
    assert daemon.process.wait(60) == StorageFull.exit_code, "a start needs to write"
    assert re.fullmatch("ureg: .*no space left.*", daemon.last_words()[-1], re.IGNORECASE)
    filler.unlink()
    daemon.start()
    with daemon.client() as client:
        expected = lines_in(client)
        wait_for(lambda: all(inbox.arrived() >= expected for inbox in inboxes), "delivered")
        wait_for(lambda: is_at_rest(client), "settled")
    assert daemon.stop() == 0
    heard = {inbox.name: inbox.heard for inbox in inboxes}
    assert violations(daemon.environ, Evidence(notes.acknowledged, notes.refused, heard, 2, IN_FLIGHT)) == []


def test_a_new_home_on_a_full_disk_is_refused_in_one_line(small: Path) -> None:
    filler = fill(small)
    daemon = Daemon(small / "home")
    said = small.parent / "said"
    with said.open("wb") as file:
        process = subprocess.run(daemon.command, env=daemon.environ, stdout=file, stderr=file, timeout=60, check=False)
    words = said.read_text().splitlines()
    assert process.returncode == StorageFull.exit_code
    assert [line.startswith("ureg: ") for line in words] == [True], words
    assert "no space left" in words[0].lower()
    filler.unlink()
    assert daemon.start() > 0
    assert daemon.stop() == 0
