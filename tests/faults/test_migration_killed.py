"""Making the registry's store, killed at any point: no store, or a good one, and the next start makes it good."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from pressure import Daemon

from universal_registry.kernel.errors import Conflict, NewerStore, RegistryError
from universal_registry.kernel.settings import Places
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.sqlfiles import load_migrations

ROOT = Path(__file__).resolve().parents[2]
KINDS = 42
POINTS = 14
CHILD = """
import os, signal, sys
from pathlib import Path
import apsw
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.storage import database
from universal_registry.storage.registry_sqlite import SqliteRegistry

path, when, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
counts = {"step": 0, "commit": 0, "committed": 0}

def reached(what):
    counts[what] += 1
    if what == when and counts[what] == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return False

def watch(connection):
    connection.set_progress_handler(lambda: reached("step"), 1)
    connection.set_commit_hook(lambda: reached("commit"))
    connection.set_wal_hook(lambda *ignored: apsw.SQLITE_OK if not reached("committed") else 1)

def connect(*args, **how):  # the hooks after our own settings, one of which would take the place of one of them
    connection = connect_plainly(*args, **how)
    watch(connection)
    return connection

connect_plainly, database._connect = database._connect, connect
SqliteRegistry.open(Path(path), load_catalogue(), SystemWorld()).database.close()
print(counts["step"], counts["commit"], counts["committed"])
"""


def make_and_die(path: Path, when: str = "never", number: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(path), when, str(number)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )


def opened(path: Path, *, read_only: bool = False) -> SqliteRegistry:
    return SqliteRegistry.open(path, load_catalogue(), SystemWorld(), read_only=read_only)


def schema(path: Path) -> tuple[int, list[tuple[Any, ...]]]:
    """Its version, and everything it holds."""
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        found = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return int(connection.pragma("user_version")), found
    finally:
        connection.close()


def test_killed_at_any_point_the_next_start_makes_it_good(tmp_path: Path) -> None:
    whole = make_and_die(tmp_path / "whole.db")
    assert (whole.returncode, whole.stderr) == (0, "")
    steps, commits, committed = map(int, whole.stdout.split())
    wanted = schema(tmp_path / "whole.db")
    assert committed >= 2, "the log's schema, then the kinds"
    points = [("step", 1 + steps * part // POINTS) for part in range(POINTS)]
    points += [("commit", number) for number in range(1, commits + 1)]
    points += [("committed", number) for number in range(1, committed + 1)]
    incarnations = set()
    for index, (when, number) in enumerate(points):
        path = tmp_path / f"{index}.db"
        killed = make_and_die(path, when, number)
        assert killed.returncode == -9, (when, number, killed)
        assert_unusable_or_good(path, wanted)
        store = opened(path)
        incarnations.add(store.meta("incarnation"))
        store.database.close()
        assert schema(path) == wanted, (when, number)
    assert len(incarnations) == len(points)


def assert_unusable_or_good(path: Path, wanted: tuple[int, list[tuple[Any, ...]]]) -> None:
    """Opened for reading, which mends nothing: refused in one line, or all there."""
    if schema(path) != wanted:
        with pytest.raises(RegistryError, match="ureg init"):
            opened(path, read_only=True)
        return
    store = opened(path, read_only=True)
    assert store.meta("incarnation")
    store.database.close()


def test_a_file_of_no_bytes_counts_as_new(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.touch()
    with pytest.raises(Conflict, match="not yet"):
        opened(path, read_only=True)
    store = opened(path)
    assert store.meta("incarnation")
    store.database.close()
    assert sum(kind == "table" for kind, _, _ in schema(path)[1]) >= KINDS


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    first = opened(path)
    incarnation = first.meta("incarnation")
    first.database.close()
    before = schema(path)
    again = opened(path)
    assert again.meta("incarnation") == incarnation
    again.database.close()
    assert schema(path) == before
    assert before[0] == len(load_migrations("registry", "sqlite"))


def test_a_newer_schema_is_refused_in_one_line_and_left_alone(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home")
    daemon.start()
    assert daemon.stop() == 0
    path = Places(daemon.places.home).registry_db
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version=999")
    connection.close()
    before = schema(path)
    for read_only in (False, True):
        with pytest.raises(NewerStore, match="999"):
            opened(path, read_only=read_only)
    daemon.spawn()
    assert daemon.process.wait(60) == NewerStore.exit_code
    words = [line for line in daemon.last_words() if line.startswith("ureg: ")]
    assert len(words) == 1
    assert "schema 999" in words[0]
    assert schema(path) == before


@pytest.mark.slow
def test_a_daemon_killed_in_its_first_start_leaves_a_home_that_the_next_one_uses(tmp_path: Path) -> None:
    """At whatever moment: nobody has to clear anything away."""
    began = Daemon(tmp_path / "measure")
    whole = began.start()
    assert began.stop() == 0
    for turn in range(8):
        daemon = Daemon(tmp_path / f"home{turn}")
        daemon.spawn()
        try:
            daemon.process.wait(whole * (turn + 1) / 8)
        except subprocess.TimeoutExpired:
            daemon.kill()
        try:
            daemon.start()
            with daemon.client() as client:
                client.request("PUT", "/v1/default/aliases/one", json={"spec": {"command": "x"}})
            assert daemon.stop() == 0
        finally:
            daemon.process.kill()
            daemon.process.wait()
