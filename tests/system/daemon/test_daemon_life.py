"""The daemon as a real process: starting, stopping, signals."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import Places
from universal_registry.observe.metrics import METRICS
from universal_registry.storage.lock import read_holder

SERVE = ("universal_registry", "serve")
IDLE_RSS_KB = 64 * 1024


def said(daemon: Any) -> list[str]:
    """What its log tells, but for anchors, which come with each health check."""
    return [event["event"] for event in daemon.events() if event["event"] != "audit anchor"]


def test_it_makes_its_home_serves_and_leaves_it_clean(start: Callable[..., Any]) -> None:
    daemon = start()
    ready = daemon.await_event("ready")
    places = daemon.places
    assert places.address.read_text().split() == ready["addresses"]
    assert ready["pid"] == daemon.process.pid == int(places.address.with_name("ureg.pid").read_text())
    for path in ("/health/live", "/health/db", "/health/ready"):
        assert daemon.client().request("GET", path).status == 200
    assert (places.key.stat().st_mode & 0o777, places.admin_token.stat().st_mode & 0o777) == (0o600, 0o600)
    assert places.registry_db.stat().st_mode & 0o007 == 0
    assert daemon.end() == 0
    assert not places.address.exists()
    assert not places.socket.exists()
    assert not places.address.with_name("ureg.pid").exists()
    assert said(daemon) == ["ready", "stopping", "stopped"]
    assert set(daemon.metrics()) == set(METRICS)
    assert daemon.metrics()["health.db"] == "0"
    assert not list(places.home.glob("*-wal")), "the last connection folds the log into the file"


def test_metrics_say_that_it_runs(start: Callable[..., Any], wait_for: Callable[..., bool]) -> None:
    daemon = start(REGISTRY_METRICS_INTERVAL="0.05").ready()
    assert wait_for(lambda: daemon.places.metrics.exists() and daemon.metrics()["health.db"] == "1")


@pytest.mark.parametrize("name", [".universal_registry.db", ".registry_propagation.db"])
def test_a_database_that_is_taken_away_shows_and_comes_back_by_itself(
    start: Callable[..., Any], wait_for: Callable[..., bool], name: str
) -> None:
    daemon = start(REGISTRY_METRICS_INTERVAL="0.05").ready()
    client, file = daemon.client(), daemon.places.home / name
    file.rename(file.with_suffix(".away"))
    failing = client.request("GET", "/health/db")
    assert (failing.status, f"{name} cannot be found any more" in failing.json()["reason"]) == (503, True)
    if name == ".universal_registry.db":
        with pytest.raises(StorageUnavailable, match="was taken away while in use; nothing is written"):
            client.request("PUT", "/v1/default/aliases/lost", json={"spec": {"command": "x"}})
    assert wait_for(lambda: daemon.metrics()["health.db"] == "0")
    file.with_suffix(".away").rename(file)
    assert client.request("GET", "/health/db").status == 200
    assert wait_for(lambda: daemon.metrics()["health.db"] == "1")


def test_at_rest_the_two_queries_of_the_seed_equal_the_metrics(
    start: Callable[..., Any], put: Callable[..., None], wait_for: Callable[..., bool]
) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("the system has no sqlite3")
    daemon = start(REGISTRY_METRICS_INTERVAL="0.05", REGISTRY_RETRY_BASE_DELAY_SECONDS="3600").ready()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
    daemon.add_target(url)
    for number in range(12):
        put(daemon.client(), f"a{number}")

    def asked(sql: str) -> str:
        command = ["sqlite3", "-readonly", str(daemon.places.propagation_db), sql]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def equal() -> bool:
        depth = asked("SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry');")
        pending = asked("SELECT COUNT(*) FROM webhook_queue WHERE status='pending';")
        shown = daemon.metrics()
        return depth == "12" and (depth, pending) == (shown["health.queue_depth"], shown["health.webhooks_pending"])

    assert wait_for(equal)
    assert daemon.end() == 0


def test_it_is_small_when_idle(start: Callable[..., Any]) -> None:
    daemon = start().ready()
    daemon.client().request("GET", "/v1/-/status")
    status = Path(f"/proc/{daemon.process.pid}/status")
    if not status.exists():
        pytest.skip("no /proc here")
    rss = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    assert rss <= IDLE_RSS_KB


def test_a_killed_daemon_comes_back_with_all_it_acknowledged_and_delivers_it(
    start: Callable[..., Any], load: Callable[..., Any], receiver: Any
) -> None:
    first = start().ready()
    first.add_target(receiver.url)
    writes = load(first)
    writes.until(30)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    writes.finish()
    assert first.places.address.exists(), "nobody was left to remove it"
    second = start().ready()
    assert writes.missing(second) == []
    receiver.await_all(writes.acknowledged)
    assert second.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_under_load_end_it_in_order_and_lose_nothing(
    start: Callable[..., Any], number: int, load: Callable[..., Any], receiver: Any
) -> None:
    for turn in range(int(os.environ.get("REGISTRY_TEST_SIGNALS", "3"))):
        daemon = start().ready()
        daemon.add_target(receiver.url)
        writes = load(daemon, prefix=f"turn{turn}")
        writes.until(20)
        assert daemon.end(number) == 0
        writes.finish()
        assert daemon.events()[-1]["event"] == "stopped"
        again = start().ready()
        assert writes.missing(again) == []
        receiver.await_all(writes.acknowledged)
        assert again.end() == 0


def test_started_with_an_ampersand_it_survives_its_shell_and_stdin(
    tmp_path: Path, events: Callable[..., Any], wait_for: Callable[..., bool], shell_command: Any
) -> None:
    home = tmp_path / "home"
    command, environ = shell_command
    subprocess.run(
        ["bash", "-c", f"{command} <&- >/dev/null 2>&1 & kill -HUP $$"],
        env=environ(REGISTRY_HOME=str(home)),
        timeout=30,
        check=False,
    )
    places = Places(home)
    assert wait_for(places.address.exists)
    holder = read_holder(places.lock)
    assert holder is not None
    os.kill(holder.pid, signal.SIGHUP)
    assert wait_for(lambda: "reloaded" in places.log.read_text())
    os.kill(holder.pid, signal.SIGINT)  # which a shell ignores on behalf of what it starts with `&`
    assert wait_for(lambda: read_holder(places.lock) is None)
    assert events(home)[-1]["signal"] == "SIGINT"


def test_a_second_signal_exits_at_once(start: Callable[..., Any], put: Callable[..., None], hanging: Any) -> None:
    daemon = start(REGISTRY_DRAIN_TIMEOUT="60").ready()
    daemon.add_target(hanging.url)
    put(daemon.client(), "one")
    assert hanging.reached.wait(30)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.await_event("stopping")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 1
    again = start().ready()
    assert again.client().request("GET", "/v1/default/aliases/one").status == 200


def test_draining_is_bounded(start: Callable[..., Any], put: Callable[..., None], hanging: Any) -> None:
    daemon = start(REGISTRY_DRAIN_TIMEOUT="0.3").ready()
    daemon.add_target(hanging.url)
    put(daemon.client(), "one")
    assert hanging.reached.wait(30)
    assert daemon.end() == 0
    assert daemon.events()[-1]["deliveries_given_up"] == 1


# --- SIGHUP ---------------------------------------------------------------------------------------------------------


def test_sighup_reopens_the_log_and_reads_settings_again(start: Callable[..., Any]) -> None:
    daemon = start().ready()
    log = daemon.places.log
    log.rename(log.with_suffix(".1"))
    (daemon.places.home / "config.py").write_text("RETRY_CONFIG = {'max_retries': 'many'}\n")
    daemon.process.send_signal(signal.SIGHUP)
    refused = daemon.await_event("not reloaded: the old settings and files stay")
    assert "config.py:1: retry.max_retries is 'many'" in refused["error"]
    (daemon.places.home / "config.py").write_text("RETRY_CONFIG = {'max_retries': 2}\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.await_event("reloaded")
    assert daemon.end() == 0
    assert said(daemon)[-3:] == ["reloaded", "stopping", "stopped"]
    assert "ready" in log.with_suffix(".1").read_text()


def test_sighup_reopens_standard_error_too_when_that_is_a_file(
    start: Callable[..., Any], wait_for: Callable[..., bool], tmp_path: Path
) -> None:
    out = tmp_path / "daemon.log"  # as launchd gives its services one
    daemon = start(command=["sh", "-c", f'exec "$@" >>{out} 2>&1', "sh", sys.executable, "-P", "-m", *SERVE])
    assert wait_for(lambda: out.exists() and '"ready"' in out.read_text())
    out.rename(out.with_suffix(".1"))
    daemon.process.send_signal(signal.SIGHUP)
    assert wait_for(lambda: out.exists() and '"reloaded"' in out.read_text())
    assert daemon.end() == 0
    assert '"stopped"' in out.read_text()
    assert '"reloaded"' not in out.with_suffix(".1").read_text()
