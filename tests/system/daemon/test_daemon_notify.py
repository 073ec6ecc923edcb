"""What the daemon tells systemd, on a real notify socket."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("child_faulty.py")
PATIENCE = 30.0
WATCHDOG = 1.0


class Manager:
    """systemd's end of the socket."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.settimeout(PATIENCE)
        self.environ = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(WATCHDOG * 1_000_000))}

    def next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def until(self, name: str, value: str | None = None) -> list[dict[str, str]]:
        """What comes, up to a message with this in it."""
        found = [self.next()]
        while name not in found[-1] or (value is not None and value not in found[-1][name]):
            found.append(self.next())
        return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.socket.close()


def test_ready_comes_when_it_serves_then_signs_of_life_a_reload_and_the_end(
    manager: Manager, start: Callable[..., Any]
) -> None:
    daemon = start(**manager.environ)
    ready = manager.until("READY")[-1]
    assert daemon.client().request("GET", "/health/ready").status == 200
    assert ready["WATCHDOG"] == "1"
    assert ready["STATUS"] == "queue depth 0, webhooks pending 0"

    assert manager.until("WATCHDOG")[-1]["WATCHDOG"] == "1"
    daemon.add_target("http://127.0.0.1:9/")  # nobody listens there
    daemon.client().request("PUT", "/v1/default/aliases/gs", json={"spec": {"command": "git status"}})
    manager.until("STATUS", "queue depth 1")

    before = time.monotonic()
    daemon.process.send_signal(signal.SIGHUP)
    reloading = manager.until("RELOADING")[-1]
    assert before <= int(reloading["MONOTONIC_USEC"]) / 1_000_000 <= time.monotonic()
    assert manager.until("READY")[-1]["READY"] == "1"

    daemon.process.send_signal(signal.SIGTERM)
    stopping = manager.until("STOPPING")[-1]
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 10_000_000
    assert daemon.wait() == 0


def test_a_start_that_fails_is_never_ready(manager: Manager, start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "run").write_text("in the way")
    assert start(**manager.environ).wait() != 0
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.next()


@pytest.mark.slow
def test_a_stuck_worker_stops_the_watchdog_until_it_moves_again(
    manager: Manager, start: Callable[..., Any], tmp_path: Path
) -> None:
    daemon = start(command=[sys.executable, str(CHILD), str(tmp_path)], **manager.environ)
    manager.until("READY")
    (tmp_path / "hang-webhook").touch()
    told = manager.until("STATUS", "the webhook worker has not moved")
    assert "WATCHDOG" not in told[-1]
    silent_since = time.monotonic()
    manager.until("WATCHDOG")  # its supervisor gave it up, and started it again
    assert time.monotonic() - silent_since > WATCHDOG  # systemd would have ended us by then
    assert daemon.end() == 0


def test_a_manager_that_is_not_there_costs_a_line_of_the_log(start: Callable[..., Any], tmp_path: Path) -> None:
    daemon = start(NOTIFY_SOCKET=str(tmp_path / "nobody")).ready()
    assert daemon.await_event("the service manager cannot be told how we do")["part"] == "service"
    assert daemon.end() == 0
    assert len([each for each in daemon.events() if each["part"] == "service"]) == 1
