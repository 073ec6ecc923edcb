"""The registry for AI clients beside a daemon that is killed, and over HTTP with tokens."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated, SubscriptionLost

from universal_registry.client.http import Client as Registry
from universal_registry.client.wire import split_address

SERVE = ["-P", "-m", "universal_registry", "studio", "serve"]
PATIENCE = 60.0


def alias(name: str, command: str = "ls") -> dict[str, Any]:
    return {"kind": "alias", "name": name, "spec": {"command": command}}


def environment(daemon: Any) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    return {**kept, "PYTHONPATH": root, "REGISTRY_HOME": str(daemon.places.home)}


@asynccontextmanager
async def studio(daemon: Any) -> AsyncIterator[Client]:
    started = StdioServerParameters(command=sys.executable, args=SERVE, env=environment(daemon))
    async with asyncio.timeout(PATIENCE), Client(stdio_client(started)) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    found: dict[str, Any] = result.structured_content
    assert not result.is_error, found
    return found


def kill(daemon: Any) -> None:
    daemon.process.send_signal(signal.SIGKILL)
    daemon.wait()


def watchers(daemon: Any) -> int:
    with daemon.client() as client:
        lines = client.request("GET", "/metrics").lines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith(b"ureg_watchers "))


@pytest.mark.slow
async def test_a_wait_and_a_subscription_outlive_a_killed_daemon(start: Any, wait_for: Callable[..., bool]) -> None:
    daemon = start().ready()
    async with studio(daemon) as client:
        begun = await ask(client, "wait_for_changes")
        await ask(client, "apply", documents=[alias("before")], dry_run=False)
        async with client.listen(resource_subscriptions=["registry://alias/after"]) as events:
            seen = await ask(client, "wait_for_changes", cursor=begun["cursor"])
            # The one who pushes; that the waits before have ended, the daemon sees when it next says something.
            assert await asyncio.to_thread(wait_for, lambda: watchers(daemon) == 1)
            waiting = asyncio.create_task(ask(client, "wait_for_changes", cursor=seen["cursor"], timeout=30))
            assert await asyncio.to_thread(wait_for, lambda: watchers(daemon) == 2)
            kill(daemon)

            # Without a daemon the registry itself is asked, and what needs a daemon says so.
            assert (await ask(client, "get", kind="alias", name="before"))["name"] == "before"
            refused = await client.call_tool("wait_for_changes", {"cursor": begun["cursor"]})
            assert refused.is_error
            assert refused.structured_content["code"] == "unreachable"
            assert "ureg up" in refused.structured_content["hint"]
            await ask(client, "apply", documents=[alias("meanwhile")], dry_run=False)

            daemon = start().ready()
            await ask(client, "apply", documents=[alias("after")], dry_run=False)
            assert (await waiting)["changes"][0]["name"] == "meanwhile"
            everything = await ask(client, "wait_for_changes", cursor=begun["cursor"])
            assert [each["name"] for each in everything["changes"]] == ["before", "meanwhile", "after"]
            assert await anext(events) == ResourceUpdated("registry://alias/after")


# --- over HTTP ------------------------------------------------------------------------------------------------------

Serve = Callable[..., str]


@pytest.fixture
def served() -> Iterator[Serve]:
    """Starts `ureg studio serve --http` beside a daemon; its URL."""
    running: list[subprocess.Popen[str]] = []

    def serve(daemon: Any, *words: str) -> str:
        command = [sys.executable, *SERVE, "--http", "127.0.0.1:0", *words]
        process = subprocess.Popen(command, env=environment(daemon), stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            assert selector.select(PATIENCE)
        line = process.stderr.readline()
        assert line.startswith("studio on http://127.0.0.1:"), line
        return line.split()[2]

    yield serve
    for process in running:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert "Traceback" not in said


@asynccontextmanager
async def over_http(url: str, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        asyncio.timeout(PATIENCE),
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def token_of(registry: Registry, scope: str) -> str:
    answer = registry.request("POST", "/v1/-/tokens", json={"name": f"ai-{scope}", "scopes": [scope]}).json()
    return str(answer["token"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_over_http_the_rights_are_those_of_the_token(start: Any, served: Serve, mode: str) -> None:
    daemon = start().ready()
    registry = daemon.client()
    url = served(daemon)
    async with over_http(url, token_of(registry, "write"), mode) as client:
        await ask(client, "apply", documents=[alias("gs")], dry_run=False)
        history = await ask(client, "history", kind="alias", name="gs")
        assert history["items"][0]["actor"] == "token:ai-write"
    async with over_http(url, token_of(registry, "read"), mode) as client:
        assert (await ask(client, "get", kind="alias", name="gs"))["name"] == "gs"
        for tool, arguments in (
            ("apply", {"documents": [alias("gs", "rm")], "dry_run": False}),
            ("propagate", {"source": "alias/gs", "targets": ["http://127.0.0.1:9/x"], "dry_run": False}),
        ):
            refused = await client.call_tool(tool, arguments)
            assert refused.is_error
            assert refused.structured_content["code"] == "forbidden"
        begun = await ask(client, "wait_for_changes")
        assert (await client.read_resource("registry://alias/gs")).contents[0].uri == "registry://alias/gs"
        waiting = asyncio.create_task(ask(client, "wait_for_changes", cursor=begun["cursor"], timeout=30))
        registry.request("PUT", "/v1/default/aliases/new", json={"spec": {"command": "ls"}})
        assert [each["name"] for each in (await waiting)["changes"]] == ["new"]


async def test_who_subscribes_over_http_is_told_behind_a_killed_daemon_too(start: Any, served: Serve) -> None:
    daemon = start().ready()
    token = token_of(daemon.client(), "read")
    async with over_http(served(daemon), token) as client:
        async with client.listen(resource_subscriptions=["registry://alias/gs"]) as events:
            kill(daemon)
            daemon = start().ready()
            daemon.client().request("PUT", "/v1/default/aliases/gs", json={"spec": {"command": "ls"}})
            assert await anext(events) == ResourceUpdated("registry://alias/gs")
        assert (await ask(client, "get", kind="alias", name="gs"))["name"] == "gs"  # its TCP port is another one now


def test_strangers_get_no_further_than_the_door(start: Any, served: Serve) -> None:
    daemon = start().ready()
    url = served(daemon)
    token = token_of(daemon.client(), "read")
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    good = {**accept, "Authorization": f"Bearer {token}"}
    with httpx2.Client(timeout=PATIENCE) as http:
        assert http.post(url, json=hello, headers=good).status_code == 200
        for headers in ({}, {"Authorization": "Bearer ur_no"}, {"Authorization": f"Basic {token}"}):
            refused = http.post(url, json=hello, headers=accept | headers)
            assert refused.status_code == 401
            assert refused.json()["code"] == "unauthenticated"
            assert token not in refused.text
        # A page in a browser whose name points here, and one that calls from elsewhere.
        assert http.post(url, json=hello, headers={**good, "Host": "evil.example"}).status_code == 421
        assert http.post(url, json=hello, headers={**good, "Origin": "https://evil.example"}).status_code == 403
        assert http.post(url, content=b"x" * (5 << 20), headers=good).status_code == 413
        assert http.post(url, content=b"{", headers={**good, "Content-Type": "application/json"}).status_code == 400
        assert http.get(url.replace("/mcp", "/other"), headers=good).status_code == 404
        revoked = daemon.client()
        revoked.request("DELETE", "/v1/-/tokens/ai-read")
        assert http.post(url, json=hello, headers=good).status_code == 401
        kill(daemon)
        away = http.post(url, json=hello, headers=good)
        assert (away.status_code, away.json()["hint"]) == (503, "`ureg up` starts one")
    host, _ = split_address(url.removeprefix("http://").removesuffix("/mcp"))
    assert host == "127.0.0.1"


async def test_what_a_token_has_opened_ends_when_it_is_revoked(start: Any, served: Serve) -> None:
    daemon = start().ready()
    registry = daemon.client()
    async with over_http(served(daemon), token_of(registry, "read")) as client:
        written = registry.request("PUT", "/v1/default/aliases/gs", json={"spec": {"command": "git"}}).json()
        async with client.listen(resource_subscriptions=["registry://alias/gs"]) as events:
            waiting = asyncio.create_task(
                client.call_tool("wait_for_changes", {"cursor": written["cursor"], "timeout": PATIENCE})
            )
            while "ureg_watchers 2" not in registry.request("GET", "/metrics").body.decode():
                await asyncio.wait({waiting}, timeout=0.05)
            registry.request("DELETE", "/v1/-/tokens/ai-read")
            refused = await waiting
            assert refused.is_error
            registry.request("PUT", "/v1/default/aliases/gs", json={"spec": {"command": "ls"}})
            with pytest.raises(SubscriptionLost):
                await anext(events)
