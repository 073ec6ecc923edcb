"""What may stand in the daemon's way: one clear line, the right exit code, nothing lost; and `up` and `down`."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from privileges import bound_by_modes

from universal_registry.kernel.settings import Places
from universal_registry.storage.lock import read_holder

# --- what stands in its way -----------------------------------------------------------------------------------------


def test_a_second_daemon_on_one_folder_names_the_first(start: Callable[..., Any], ureg: Callable[..., Any]) -> None:
    first = start().ready()
    second = ureg(first.places.home, "serve")
    assert second.returncode == 5
    (line,) = second.stderr.splitlines()
    assert f"in use by process {first.process.pid} (daemon)" in line
    assert first.client().request("GET", "/health/ready").status == 200


def test_a_taken_port_is_named(
    start: Callable[..., Any], tmp_path: Path, ureg: Callable[..., Any], events: Callable[..., Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = ureg(tmp_path / "home", "serve", REGISTRY_LISTEN=address)
    assert found.returncode == 5
    (line,) = found.stderr.splitlines()
    assert f"cannot listen on {address}: the port is taken" in line
    assert events(tmp_path / "home")[-1]["event"] == "not started"


@pytest.mark.parametrize("file", [".universal_registry.db", ".registry_propagation.db"])
def test_a_file_that_is_no_database_is_named_and_left_alone(
    tmp_path: Path, file: str, ureg: Callable[..., Any]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / file).write_bytes(b"precious" * 1000)
    found = ureg(home, "serve")
    assert found.returncode == 1
    assert file in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert (home / file).read_bytes() == b"precious" * 1000


def test_an_empty_database_counts_as_new(start: Callable[..., Any], tmp_path: Path, put: Callable[..., None]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".universal_registry.db").touch()
    (home / ".registry_propagation.db").touch()
    daemon = start(home).ready()
    put(daemon.client(), "one")
    assert daemon.end() == 0


def test_a_missing_key_is_never_replaced(start: Callable[..., Any], ureg: Callable[..., Any]) -> None:
    daemon = start().ready()
    assert daemon.end() == 0
    key = daemon.places.key.read_bytes()
    daemon.places.key.unlink()
    found = ureg(daemon.places.home, "serve")
    assert found.returncode == 5
    assert "encryption.key is missing" in found.stderr
    assert not daemon.places.key.exists()
    daemon.places.key.write_bytes(key)
    daemon.places.key.chmod(0o600)
    assert start().ready().end() == 0


def test_a_home_under_a_file_is_one_clear_line(tmp_path: Path, ureg: Callable[..., Any]) -> None:
    (tmp_path / "file").touch()
    found = ureg(tmp_path / "file" / "home", "serve")
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert "cannot be made" in line


def test_a_folder_that_may_not_be_written_is_one_clear_line(tmp_path: Path, ureg: Callable[..., Any]) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    found = ureg(home, "serve", before=bound_by_modes())
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert os.strerror(errno.EACCES).lower() in line.lower()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a read-only folder")
def test_a_read_only_folder_is_one_clear_line(tmp_path: Path, ureg: Callable[..., Any]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(home)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        found = ureg(home, "serve")
    finally:
        subprocess.run(["umount", str(home)], check=True)
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert os.strerror(errno.EROFS).lower() in line.lower()


def test_a_bad_setting_is_one_line_and_exit_2(tmp_path: Path, ureg: Callable[..., Any]) -> None:
    found = ureg(tmp_path / "home", "serve", REGISTRY_HEALTH_INTERVAL="often")
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert "REGISTRY_HEALTH_INTERVAL: health_interval is 'often'" in line
    assert not (tmp_path / "home").exists()


def test_a_home_too_deep(start: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / "with a space"
    daemon = start(home, REGISTRY_RUN_DIR=str(tmp_path)).ready()
    address = daemon.places.address.read_text().splitlines()[0]
    assert Path(address).parent == tmp_path
    assert daemon.client().request("GET", "/health/ready").status == 200
    assert daemon.end() == 0
    assert not Path(address).exists()


# --- up and down ----------------------------------------------------------------------------------------------------


def test_up_and_down_are_idempotent(tmp_path: Path, ureg: Callable[..., Any], events: Callable[..., Any]) -> None:
    home = tmp_path / "home"
    try:
        assert ureg(home, "down").returncode == 0
        up = ureg(home, "up")
        assert up.returncode == 0, up.stderr
        holder = read_holder(Places(home).lock)
        assert holder is not None
        assert os.getsid(holder.pid) == holder.pid, "it stands apart from the terminal that started it"
        assert ureg(home, "up").returncode == 0
        assert read_holder(Places(home).lock) == holder
    finally:
        down = ureg(home, "down")
    assert down.returncode == 0
    assert read_holder(Places(home).lock) is None
    assert events(home)[-1]["event"] == "stopped"
    assert ureg(home, "down").returncode == 0


def test_two_ups_at_once_start_one_daemon(tmp_path: Path, ureg: Callable[..., Any], events: Callable[..., Any]) -> None:
    home = tmp_path / "home"
    found: list[int] = []
    try:
        both = [threading.Thread(target=lambda: found.append(ureg(home, "up").returncode)) for _ in range(2)]
        for each in both:
            each.start()
        for each in both:
            each.join()
        assert found == [0, 0]
        started = [event for event in events(home) if event["event"] == "ready"]
        assert len(started) == 1
    finally:
        assert ureg(home, "down").returncode == 0


def test_up_says_why_it_did_not_start(tmp_path: Path, ureg: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = ureg(tmp_path / "home", "up", REGISTRY_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
    assert found.returncode == 5
    (line,) = found.stderr.splitlines()
    assert "the port is taken" in line


def test_up_ends_with_the_exit_code_of_its_cause(tmp_path: Path, ureg: Callable[..., Any]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".universal_registry.db").write_bytes(b"precious" * 1000)
    found = ureg(home, "up")
    assert (found.returncode, len(found.stderr.splitlines())) == (1, 1)
    assert ".universal_registry.db" in found.stderr
    (tmp_path / "file").touch()
    assert ureg(tmp_path / "file" / "home", "up").returncode == 1
    assert ureg(tmp_path / "other", "up", REGISTRY_HEALTH_INTERVAL="often").returncode == 2


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may look into, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_the_daemon_of_another_user_is_not_ours_to_stop(
    start: Callable[..., Any], open_folder: Path, shell_command: tuple[str, Callable[..., dict[str, str]]]
) -> None:
    daemon = start(open_folder / "home").ready()
    program = (
        "import os, sys\n"
        "from universal_registry.__main__ import main\n"
        "sys.argv = ['ureg', 'down', '--home', sys.argv[1] + '-none']\n"
        "assert main() == 0  # which reads all modules: the other user may not be able to\n"
        "os.setgroups([])\n"
        "os.setgid(65534)\n"
        "os.setuid(65534)\n"
        "sys.argv[3] = sys.argv[3].removesuffix('-none')\n"
        "sys.exit(main())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(daemon.places.home)],
        env=shell_command[1](),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (found.returncode, found.stdout) == (4, "")
    assert "is not yours" in found.stderr
    assert daemon.end() == 0


def test_odd_settings_stand_in_the_log(start: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.py").write_text("RETRY_CONFIG = {'max_retry': 3}\n")
    daemon = start(home, REGISTRY_LISTN="x").ready()
    notes = {event["note"] for event in daemon.events() if event["event"] == "settings"}
    assert notes == {
        "config.py:1: RETRY_CONFIG has no key max_retry; did you mean max_retries?",
        "REGISTRY_LISTN: no setting is called so; did you mean REGISTRY_LISTEN?",
    }
    assert daemon.end() == 0
