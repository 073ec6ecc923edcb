"""Workers that die and hang in the real daemon, a database that goes and comes: seen, said, and over by itself."""

from __future__ import annotations

import http.client
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pgserver
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

CHILD = Path(__file__).with_name("child_faulty.py")
WORKERS = ("propagation", "webhook", "streaming", "health")


def health(daemon: Any) -> Any:
    return daemon.client().request("GET", "/health").json()


def scraped(daemon: Any, name: str) -> dict[tuple[str, ...], float]:
    text = daemon.client().request("GET", "/metrics").body.decode()
    samples = [sample for family in parse(text) for sample in family.samples]
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder


@pytest.fixture
def faulty(start: Callable[..., Any], faults: Path) -> Any:
    """A daemon whose workers can be killed and hung."""
    return start(command=[sys.executable, "-P", str(CHILD), str(faults)], REGISTRY_METRICS_INTERVAL="0.1").ready()


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_that_dies_is_seen_and_started_again(
    faulty: Any, faults: Path, worker: str, receiver: Any, put: Callable[..., None], wait_for: Callable[..., bool]
) -> None:
    faulty.add_target(receiver.url)
    (faults / f"die-{worker}").touch()
    put(faulty.client(), "while")
    assert wait_for(lambda: health(faulty)["workers"][worker]["deaths"] == 1)
    assert wait_for(lambda: health(faulty)["status"] == "ok")
    assert scraped(faulty, "ureg_worker_deaths_total")[worker,] == 1
    assert scraped(faulty, "ureg_worker_up")[worker,] == 1
    put(faulty.client(), "after")
    receiver.await_all(["while", "after"])
    (died,) = [event for event in faulty.events() if event["event"] == "worker died"]
    assert (died["worker"], died["level"]) == (worker, "error")
    assert f"a fault put into the {worker} worker" in died["trace"]
    assert [event["worker"] for event in faulty.events() if event["event"] == "worker restarted"] == [worker]
    assert faulty.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_that_hangs_is_seen_cancelled_and_started_again(
    faulty: Any, faults: Path, worker: str, receiver: Any, put: Callable[..., None], wait_for: Callable[..., bool]
) -> None:
    faulty.add_target(receiver.url)
    (faults / f"hang-{worker}").touch()
    put(faulty.client(), "while")
    assert wait_for(lambda: health(faulty)["workers"][worker]["state"] == "stuck")
    found = health(faulty)
    assert found["status"] == "failing"
    assert f"the {worker} worker has not moved for" in found["reason"]
    assert scraped(faulty, "ureg_worker_stuck")[worker,] == 1
    assert faulty.client().request("GET", "/health/ready").status == 503
    assert faulty.client().request("GET", "/health/db").status == 200
    assert faulty.client().request("GET", "/health/live").status == 200
    assert wait_for(lambda: health(faulty)["status"] == "ok")
    assert health(faulty)["workers"][worker]["deaths"] == 1
    put(faulty.client(), "after")
    receiver.await_all(["while", "after"])
    said = [event["event"] for event in faulty.events() if event.get("worker") == worker]
    assert said == ["worker stuck", "worker cancelled: it was stuck", "worker restarted"]
    assert faulty.end() == 0


def test_the_figures_tell_of_a_target_that_does_not_answer(
    start: Callable[..., Any], hanging: Any, put: Callable[..., None], wait_for: Callable[..., bool]
) -> None:
    daemon = start(REGISTRY_RETRY_TIMEOUT_SECONDS="20", REGISTRY_DRAIN_TIMEOUT="0").ready()
    daemon.add_target(hanging.url)
    put(daemon.client(), "one")
    assert hanging.reached.wait(30)
    put(daemon.client(), "two")
    assert scraped(daemon, "ureg_target_in_flight")["system/mine",] >= 1
    assert scraped(daemon, "ureg_in_flight")[()] >= 1
    assert wait_for(lambda: scraped(daemon, "ureg_queue_depth")[()] == 2)
    assert wait_for(lambda: scraped(daemon, "ureg_target_lag_seconds")["system/mine",] > 0)
    assert scraped(daemon, "ureg_attempts_total")["none",] == 0
    assert daemon.end() == 0


# --- the database goes and comes ------------------------------------------------------------------------------------


def asked(daemon: Any, path: str = "/health/db", token: str = "") -> int:
    """Asked over TCP, without a token or with one."""
    connection = http.client.HTTPConnection(daemon.places.address.read_text().splitlines()[1], timeout=30)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()


def changes(daemon: Any) -> list[bool]:
    """What the checks found, each time that it was something else than before."""
    return [event["status"] == "ok" for event in daemon.events() if event["event"] == "health changed"]


@pytest.mark.parametrize("file", ["registry_db", "propagation_db"])
def test_a_database_file_that_is_moved_away_and_put_back(
    start: Callable[..., Any], file: str, put: Callable[..., None], wait_for: Callable[..., bool], tmp_path: Path
) -> None:
    daemon = start(REGISTRY_METRICS_INTERVAL="0.1", REGISTRY_HEALTH_INTERVAL="0.2").ready()
    put(daemon.client(), "before")
    assert asked(daemon) == 200
    path = getattr(daemon.places, file)
    path.rename(tmp_path / "away.db")
    assert asked(daemon) == 503
    assert f"{path.name} cannot be found any more" in health(daemon)["reason"]
    assert asked(daemon, "/health/live") == 200
    assert wait_for(lambda: daemon.metrics()["health.db"] == "0")
    assert scraped(daemon, "ureg_health_db") == {(): 0}
    (tmp_path / "away.db").rename(path)
    assert asked(daemon) == 200
    assert wait_for(lambda: daemon.metrics()["health.db"] == "1")
    put(daemon.client(), "after")
    assert changes(daemon) in ([False, True], [])  # a check may have missed it all
    assert daemon.end() == 0
    assert all(state["event"] != "worker died" for state in daemon.events())


@pytest.fixture
def server() -> Iterator[pgserver.Server]:
    """A PostgreSQL that this test may stop."""
    try:
        found = pgserver.Server()
    except pgserver.NoServerHere as error:
        pytest.skip(str(error))
    found.database("faults")
    yield found
    found.close()


def test_a_postgresql_that_is_stopped_and_started_again(
    start: Callable[..., Any], server: pgserver.Server, put: Callable[..., None], wait_for: Callable[..., bool]
) -> None:
    env = server.environment("faults")
    daemon = start(REGISTRY_METRICS_INTERVAL="0.1", REGISTRY_HEALTH_INTERVAL="0.2", **env).ready()
    put(daemon.client(), "before")
    assert asked(daemon) == 200
    server.stop()
    assert asked(daemon) == 503
    assert "cannot be reached" in health(daemon)["reason"]
    assert asked(daemon, "/health/live") == 200
    assert wait_for(lambda: daemon.metrics()["health.db"] == "0")
    server.start()
    assert wait_for(lambda: asked(daemon) == 200)
    assert wait_for(lambda: daemon.metrics()["health.db"] == "1")
    put(daemon.client(), "after")
    assert wait_for(
        lambda: [e["status"] == "ok" for e in daemon.events() if e["event"] == "health changed"][-1:] == [True]
    )
    assert daemon.end() == 0
    assert all(event["event"] != "worker died" for event in daemon.events())


def test_a_token_made_at_one_daemon_opens_and_closes_the_other(
    start: Callable[..., Any], server: pgserver.Server, wait_for: Callable[..., bool], tmp_path: Path
) -> None:
    env = server.environment("faults")
    one = start(tmp_path / "one", **env).ready()
    shutil.copytree(tmp_path / "one" / "config", tmp_path / "two" / "config")
    two = start(tmp_path / "two", **env).ready()
    made = one.client().request("POST", "/v1/-/tokens", json={"name": "ci", "scopes": ["read"]}).json()
    assert wait_for(lambda: asked(two, "/metrics", made["token"]) == 200)
    one.client().request("DELETE", "/v1/-/tokens/ci")
    assert asked(one, "/metrics", made["token"]) == 401
    assert wait_for(lambda: asked(two, "/metrics", made["token"]) == 401)
    assert [one.end(), two.end()] == [0, 0]


# --- a clean stop ---------------------------------------------------------------------------------------------------


def test_a_clean_stop_writes_its_last_words(
    start: Callable[..., Any], ureg: Callable[..., Any], tmp_path: Path
) -> None:
    daemon = start().ready()
    assert asked(daemon, "/metrics") == 401
    assert daemon.end() == 0
    metrics = daemon.metrics()
    assert (metrics["health.db"], "metrics.updated_at" in metrics) == ("0", True)
    listed = ureg(daemon.places.home, "audit", "ls", "-o", "tsv")
    assert "unauthenticated: a token is needed" in listed.stdout
    log = str(daemon.places.log)
    done = ureg(daemon.places.home, "audit", "verify", "--anchor", log)
    assert (done.returncode, "anchors that agree:" in done.stdout) == (0, True)
