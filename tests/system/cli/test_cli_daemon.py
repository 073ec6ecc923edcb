"""restart, logs, status -w and target remove, as people run them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.system.cli.conftest import UREG

NOWHERE = "http://127.0.0.1:9"


def _pid(ureg: Any) -> int:
    found: int = ureg.json("status")["daemon"]["pid"]
    return found


# --- restart ----------------------------------------------------------------------------------------------------------


def test_restart_is_another_daemon_with_the_settings_of_now(online: Any) -> None:
    before = _pid(online)
    online("set", "alias", "gs", "command=x")
    said = online("restart", REGISTRY_LISTEN="").stdout.splitlines()
    assert said[0] == f"daemon stopped: pid {before}"
    assert said[1].startswith("daemon started: pid ")
    assert "127.0.0.1" not in said[1]
    assert _pid(online) != before
    assert online("get", "alias", "gs", "-o", "name").stdout == "alias/gs\n"


def test_restart_starts_one_where_none_runs(offline: Any) -> None:
    done = offline("restart")
    assert "no daemon ran" in done.stderr
    assert done.stdout.startswith("daemon started: pid ")


def test_restart_refuses_broken_settings_before_anything_is_stopped(online: Any) -> None:
    before = _pid(online)
    online.write("home/config.py", 'RETRY_CONFIG = {"max_retries": "many"}\n')
    assert "max_retries" in online("restart", code=2).stderr
    assert _pid(online) == before


def test_restart_after_a_kill(online: Any, wait_for: Any) -> None:
    before = _pid(online)
    os.kill(before, signal.SIGKILL)
    assert wait_for(lambda: not Path(f"/proc/{before}/cmdline").exists() or _is_zombie(before))
    assert online("restart").stdout.splitlines()[-1].startswith("daemon started: pid ")
    assert _pid(online) != before


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes() == b""


# --- logs -------------------------------------------------------------------------------------------------------------


def test_logs_are_the_newest_lines_in_words_or_as_they_are(online: Any) -> None:
    first, *_ = online("logs").stdout.splitlines()
    assert first[10] == "T"
    assert "  info     ready  part=runner pid=" in first
    lines = (online.home / "logs" / "registry.log").read_text().splitlines()
    assert online("logs", "-o", "ndjson").stdout.splitlines() == lines
    assert online("logs", "-n", "1", "-o", "ndjson").stdout.splitlines() == lines[-1:]
    assert online("logs", "-n", "0").stdout == ""
    online("down")
    assert "stopped" in online("logs", "-n", "1").stdout


def test_logs_larger_than_a_piece_and_lines_that_are_no_events(offline: Any) -> None:
    offline("logs", code=3)
    lines = [f'{{"ts":"t","level":"info","event":"e{number}","part":"p"}}' for number in range(5000)]
    lines[4998] = "no JSON \x1b[31m \u202e"
    offline.write("home/logs/registry.log", "\n".join(lines) + "\nbegun")
    assert offline("logs", "-n", "4990", "-o", "ndjson").stdout.split("\n") == [*lines[10:], "begun", ""]
    words = offline("logs", "-n", "3").stdout.splitlines()
    assert words == [r"t  info     e4997  part=p", r"no JSON \x1b[31m \u202e", "t  info     e4999  part=p", "begun"]
    offline("logs", "-n", "-1", code=2)


def test_logs_are_read_while_config_py_is_broken_and_a_folder_is_no_log(offline: Any) -> None:
    offline.write("home/logs/registry.log", "x\n")
    offline.write("home/config.py", "RETRY_CONFIG = (\n")
    assert offline("logs").stdout == "x\n"
    (offline.home / "logs" / "registry.log").unlink()
    (offline.home / "logs" / "registry.log").mkdir()
    assert "cannot be read" in offline("logs", code=2).stderr


def test_logs_follow_over_a_rotation_and_a_truncation_until_ctrl_c(offline: Any) -> None:
    log = Path(offline.write("home/logs/registry.log", "one\ntwo\n"))
    running = offline.start("logs", "-f", "-n", "1", "-o", "ndjson")
    assert running.stdout.readline() == "two\n"
    with log.open("a") as file:
        file.write("three\nfo")
        file.flush()
        assert running.stdout.readline() == "three\n"
        file.write("ur\n")
        file.flush()
        assert running.stdout.readline() == "four\n"
        log.rename(log.with_suffix(".1"))
        file.write("five\n")
    offline.write("home/logs/registry.log", "six\n")
    assert [running.stdout.readline() for _ in range(2)] == ["five\n", "six\n"]
    os.truncate(log, 0)
    with log.open("a") as file:
        file.write("7\n")
    assert running.stdout.readline() == "7\n"
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=30) == ("", "")
    assert running.returncode == 0


# --- status -w --------------------------------------------------------------------------------------------------------


def test_status_is_written_again_when_it_has_changed(online: Any) -> None:
    running = online.start("status", "-w", "-o", "ndjson")
    assert json.loads(running.stdout.readline())["revision"] == 0
    online("set", "alias", "gs", "command=x")
    shown = json.loads(running.stdout.readline())
    assert shown["records"] == 1 or json.loads(running.stdout.readline())["records"] == 1
    online("down")
    while json.loads(running.stdout.readline())["daemon"] is not None:
        pass
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    assert running.returncode == 0


@pytest.mark.parametrize("ending", ["q", "SIGINT"])
def test_status_on_a_terminal_is_redrawn(online: Any, ending: str) -> None:
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    before = termios.tcgetattr(side)
    with subprocess.Popen([*UREG, "status", "-w"], env=online.environ, stdin=side, stdout=side, stderr=side) as process:
        _read_until(main, b"revision 0")
        online("set", "alias", "gs", "command=x")
        assert b"\x1b[H" in _read_until(main, b"revision 1")
        if ending == "q":
            os.write(main, b"q")
        else:
            process.send_signal(signal.Signals[ending])
        _read_until(main, b"\x1b[?1049l")
        assert process.wait(30) == 0
    assert termios.tcgetattr(side) == before
    os.close(side)
    os.close(main)


def _read_until(main: int, wanted: bytes) -> bytes:
    shown = b""
    while wanted not in shown:
        shown += os.read(main, 65536)
    return shown


# --- target remove ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.usefixtures("bare")
def test_a_target_is_removed_with_what_waits_for_it(ureg: Any) -> None:
    ureg("target", "add", "mine", NOWHERE, "--select", "kind=alias")
    ureg("target", "add", "other", NOWHERE)
    ureg("route", "add", "both", "--select", "kind=service", "--target", "mine", "--target", "other")
    ureg("set", "alias", "gs", "command=x")
    ureg("target", "pause", "mine")
    would = ureg.json("target", "remove", "mine", "--dry-run", "--routes")
    assert (would["revision"], would["routes_removed"], would["routes_waiting"]) == (None, ["mine"], ["both"])
    assert len(ureg.json("target", "ls")) == 2
    done = ureg("target", "remove", "mine", "--routes", "-m", "moved")
    assert "target mine removed, revision " in done.stdout
    assert "route mine removed" in done.stdout
    assert done.stderr == "route both names it, and waits for a target of that name\n"
    assert [each["name"] for each in ureg.json("target", "ls")] == ["other"]
    assert [each["route"] for each in ureg.json("route", "ls")] == ["both"]
    assert ureg.json("history", "endpoint", "mine", "-n", "system")[0]["message"] == "moved"
    assert "did you mean 'other'" in ureg("target", "remove", "othr", code=3).stderr


def test_a_target_that_was_removed_comes_back_and_gets_the_state_of_then(online: Any, wait_for: Any) -> None:
    online("target", "add", "mine", NOWHERE, "--select", "kind=alias")
    online("set", "alias", "gs", "command=x")
    online("unidirectional", "gs", "mine", '{"n": 1}')
    assert wait_for(lambda: len(online.json("delivery", "ls")) == 2)
    done = online("target", "remove", "mine")
    assert "2 deliveries to it dropped" in done.stdout
    assert "--routes removes it too" in done.stderr
    assert wait_for(lambda: not online.json("delivery", "ls"))
    online("undelete", "endpoint", "mine", "-n", "system")
    assert wait_for(lambda: online.json("delivery", "ls"))
    assert [each["op"] for each in online.json("delivery", "ls")] == ["put"]
