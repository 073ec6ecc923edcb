"""A daemon and a real nats-server: a registry's changes through JetStream, with the server killed in the middle."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.natsserver import NatsServer
from universal_registry.client.receiver import WebhookReceiver

Start = Callable[..., Any]
Ureg = Callable[..., Any]
PATIENCE = 60.0
IDLE_RSS_KB = 64 * 1024
SOON = {
    "REGISTRY_RETRY_BASE_DELAY_SECONDS": "0.05",
    "REGISTRY_RETRY_MAX_DELAY_SECONDS": "0.2",
    "REGISTRY_RETRY_BUDGET": "1000000",
    "REGISTRY_RETRY_CIRCUIT_BREAKER_TIMEOUT_SECONDS": "0.2",
}


@pytest.fixture(params=["sqlite", "postgres"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """What a daemon is told to run on each engine, and to try again soon."""
    if request.param == "sqlite":
        return dict(SOON)
    postgres = request.getfixturevalue("postgres")
    postgres.database("daemons")
    return {**postgres.environment("daemons"), **SOON}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    (tmp_path / "nats").mkdir()
    server = NatsServer(tmp_path / "nats")
    yield server
    server.thaw()
    server.kill()


def _lane(client: Any, name: str = "mine") -> dict[str, Any]:
    shown: dict[str, Any] = client.request("GET", f"/v1/-/targets/system/{name}").json()
    return shown


def _until(client: Any, delivered: int, name: str = "mine") -> None:
    end = time.monotonic() + PATIENCE
    while (shown := _lane(client, name))["lane"] is None or shown["lane"]["delivered"] < delivered:
        assert time.monotonic() < end, shown


def _add(client: Any, name: str, url: str, **more: str) -> dict[str, Any]:
    body = {"name": name, "url": url, "select": "name=*", **more}
    added: dict[str, Any] = client.request("POST", "/v1/-/targets", json=body).json()
    return added


def _put(client: Any, plural: str, names: list[str]) -> None:
    spec = {"aliases": {"command": "ls"}, "services": {"port": 80}}[plural]
    for name in names:
        client.request("PUT", f"/v1/default/{plural}/{name}", json={"spec": spec})


def test_all_changes_of_all_kinds_reach_the_stream_once_though_the_server_is_killed(
    start: Start, server: NatsServer, env: dict[str, str]
) -> None:
    """Nobody helps: the breaker opens, probes, and closes by itself."""
    asyncio.run(server.make_stream())
    daemon = start(**env).ready()
    client = daemon.client()
    _add(client, "mine", server.url())
    _put(client, "aliases", [f"a{number}" for number in range(40)])
    _until(client, 20)
    server.kill()
    _put(client, "services", [f"s.{number}" for number in range(40)])
    end = time.monotonic() + PATIENCE
    while _lane(client)["lane"]["breaker"] != "open":
        assert time.monotonic() < end, "it never rested"
    server.start()
    _until(client, 80)
    (told,) = client.request("GET", "/v1/-/where", query={"name": "service/s.39"}).json()["items"]
    assert [(each["target"], each["state"]) for each in told["targets"]] == [("system/mine", "arrived")], told
    assert daemon.end() == 0
    got = asyncio.run(server.messages())
    assert len({headers["Nats-Msg-Id"] for _, _, headers, _ in got}) == len(got) == 80
    assert {subject for _, subject, _, _ in got} == {
        *(f"ureg.alias.default.a{number}" for number in range(40)),
        *(f"ureg.service.default.s%2E{number}" for number in range(40)),
    }


def test_a_hanging_server_keeps_the_other_waiting_for_nothing(
    start: Start, server: NatsServer, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = NatsServer(tmp_path / "other")
    try:
        for each in (server, other):
            asyncio.run(each.make_stream())
        daemon = start(**env, REGISTRY_RETRY_TIMEOUT_SECONDS="1").ready()
        client = daemon.client()
        _add(client, "mine", server.url())
        _add(client, "well", other.url())
        server.freeze()
        _put(client, "aliases", [f"a{number}" for number in range(30)])
        _until(client, 30, "well")
        assert _lane(client)["lane"]["delivered"] == 0
        server.thaw()
        _until(client, 30)
        assert daemon.end() == 0
        for each in (server, other):
            got = asyncio.run(each.messages())
            assert len(got) == 30
            assert {subject for _, subject, _, _ in got} == {f"ureg.alias.default.a{number}" for number in range(30)}
    finally:
        other.kill()


def test_sealed_messages_say_nothing_and_open(start: Start, server: NatsServer, env: dict[str, str]) -> None:
    asyncio.run(server.make_stream())
    daemon = start(**env).ready()
    client = daemon.client()
    keys = _add(client, "mine", server.url(), seal="always")
    _put(client, "aliases", ["canary-name"])
    _until(client, 1)
    assert daemon.end() == 0
    ((_, subject, headers, data),) = asyncio.run(server.messages())
    assert subject == "ureg.sealed"
    assert not [name for name in headers if name.lower().startswith("ce-")]
    assert b"canary" not in data
    assert "canary" not in str(headers)
    message = WebhookReceiver(secrets=[keys["secret"]], seal_keys=[keys["seal_key"]]).open(headers, data)
    assert (message.subject, message.type) == ("alias/default/canary-name", "registry.alias.created.v1")


def test_a_daemon_without_nats_targets_does_not_load_the_library(
    start: Start, receiver: Any, shell_command: tuple[str, Callable[..., dict[str, str]]]
) -> None:
    daemon = start().ready()
    daemon.add_target(receiver.url)
    _put(daemon.client(), "aliases", ["a"])
    receiver.await_all(["a"])
    if not (process := Path(f"/proc/{daemon.process.pid}")).exists():
        pytest.skip("no /proc here")
    rss = next(int(line.split()[1]) for line in (process / "status").read_text().splitlines() if "VmRSS" in line)
    assert rss <= IDLE_RSS_KB
    assert daemon.end() == 0
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LOADED], env=shell_command[1](), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


_LOADED = """
import sys
import universal_registry.app, universal_registry.runner.daemon, universal_registry.propagation.engine.engine
import universal_registry.api.server, universal_registry.transports.webhook
print([name for name in sys.modules if name.partition(".")[0] == "nats"])
"""


def test_the_command_line_shows_adds_and_refuses(ureg: Ureg, server: NatsServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert ureg(home, "init").returncode == 0
    assert ureg(home, "target", "add", "bus", server.url(), "--select", "name=*").returncode == 0
    shown = ureg(home, "target", "test", "bus", "--show")
    assert shown.stdout.startswith(f"PUB nats://127.0.0.1:{server.port}/ureg.endpoint.system.bus\nNats-Msg-Id: test_")
    missing = ureg(home, "target", "test", "bus")
    assert (missing.returncode, "nats stream add ureg --subjects 'ureg.>'" in missing.stdout) == (1, True)
    asyncio.run(server.make_stream())
    assert ureg(home, "target", "test", "bus").returncode == 0
    assert ureg(home, "set", "alias", "gs", "command=ls").returncode == 0
    assert "waiting" in ureg(home, "where", "gs").stdout  # for a daemon, or for ureg propagate
    assert ureg(home, "target", "key", "rotate", "bus").returncode == 0
    record = json.loads(ureg(home, "get", "endpoint/bus", "-n", "system", "-o", "json").stdout)
    assert (record["classification"], record["spec"]["protocol"]) == ("NatsEndpoint", "nats")
    assert record["spec"]["delivery"]["transport"] == "nats"


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("nats://bus.example/ureg", 9, "cleartext"),
        ("nats://u:geheim-1@bus.example/ureg --insecure-http", 6, "would travel in clear: use tls://"),
        ("nats://127.0.0.1/ureg.>", 6, "is not one that can be published to"),
        ("tls://169.254.169.254/ureg", 9, "cloud metadata"),
    ],
)
def test_what_must_not_be_is_refused(ureg: Ureg, tmp_path: Path, url: str, status: int, said: str) -> None:
    home = tmp_path / "home"
    assert ureg(home, "init").returncode == 0
    done = ureg(home, "target", "add", "bus", *url.split())
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert "geheim" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert ureg(home, "get", "endpoint/bus", "-n", "system").returncode == 3


def test_the_credential_is_shown_nowhere(start: Start, tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    server = NatsServer(tmp_path / "nats", 'authorization { user: u, password: "geheim-1" }')
    try:
        daemon = start().ready()
        client = daemon.client()
        url = server.url(login="u:geheim-1@")
        added = client.request("POST", "/v1/-/targets", json={"name": "mine", "url": url}).json()
        tested = client.request("POST", "/v1/-/targets/system/mine/test").json()
        record = client.request("GET", "/v1/system/endpoints/mine").json()
        assert added["url"] == server.url()
        assert (tested["status"], "nats stream add" in tested["reason"]) == (404, True)  # it was let in
        said = f"{added} {tested} {record} {_lane(client)} {client.request('GET', '/v1/changes').body!r}"
        assert "geheim" not in said
        assert daemon.end() == 0
        assert "geheim" not in f"{daemon.said} {daemon.events()}"
    finally:
        server.kill()
