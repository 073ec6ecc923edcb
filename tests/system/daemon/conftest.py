"""A daemon of a test's own, and what tests put it through."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from universal_registry.client.http import Client
from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.settings import Places

ROOT = Path(__file__).resolve().parents[3]
UREG = [sys.executable, "-P", "-m", "universal_registry"]
PATIENCE = 30.0


def environ(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "REGISTRY_LISTEN": "127.0.0.1:0", **more}


def ureg(home: Path, *words: str, before: Sequence[str] = (), **env: str) -> subprocess.CompletedProcess[str]:
    said = {"REGISTRY_HOME": str(home), **env}
    return subprocess.run(
        [*before, *UREG, *words], env=environ(**said), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


class Daemon:
    """A `ureg serve` of a test's own, or another `command` that serves."""

    def __init__(self, home: Path, command: Sequence[str] = (*UREG, "serve"), **env: str) -> None:
        self.places = Places(home)
        self.process = subprocess.Popen(
            command,
            env=environ(REGISTRY_HOME=str(home), **env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.said: list[str] = []

    def await_event(self, event: str) -> dict[str, Any]:
        """Read its standard error until it says so."""
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while selector.select(PATIENCE):
                line = _read_line(descriptor)
                if not line:
                    break
                self.said.append(line)
                if line.startswith("{") and (found := json.loads(line))["event"] == event:
                    return found
        raise AssertionError(f"it never said {event!r}, but: {self.said}")

    def ready(self) -> Daemon:
        self.await_event("ready")
        return self

    def events(self) -> list[dict[str, Any]]:
        """Its log."""
        return read_events(self.places)

    def metrics(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.places.metrics.read_text(encoding="utf-8").splitlines())

    def add_target(self, url: str) -> None:
        """Send all aliases there."""
        self.client().request("POST", "/v1/-/targets", json={"name": "mine", "url": url, "select": "kind=alias"})

    def client(self) -> Client:
        return Client(self.places.address.read_text().splitlines()[0])

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process.stderr is not None
        self.said += self.process.stderr.read().decode().splitlines()
        return self.process.wait(PATIENCE)


def _read_line(descriptor: int) -> str:
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(descriptor, 1)
        if not piece:
            break
        data += piece
    return data.decode().rstrip("\n")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    daemons: list[Daemon] = []

    def make(home: Path | None = None, **more: Any) -> Daemon:
        daemons.append(Daemon(home or tmp_path / "home", **more))
        return daemons[-1]

    yield make
    for each in daemons:
        with suppress(ProcessLookupError):
            each.process.kill()
        each.process.wait()
        assert each.process.stderr is not None
        each.process.stderr.close()


def read_events(places: Places) -> list[dict[str, Any]]:
    return [json.loads(line) for line in places.log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def events() -> Callable[[Path], list[dict[str, Any]]]:
    """The log in a home."""
    return lambda home: read_events(Places(home))


@pytest.fixture(name="ureg")
def _ureg() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command to its end."""
    return ureg


@pytest.fixture
def shell_command() -> tuple[str, Callable[..., dict[str, str]]]:
    """The command line of `ureg serve` for a shell, and the environment it needs."""
    return " ".join(f"'{word}'" for word in [*UREG, "serve"]), environ


@pytest.fixture(name="put")
def _put() -> Callable[[Client, str], None]:
    """Writes one alias."""
    return put


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[[Callable[[], object]], bool]:
    return wait_for


@pytest.fixture
def load() -> type[Load]:
    """Writers that note which of their writes were acknowledged."""
    return Load


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A target that takes everything."""
    target = Receiver()
    yield target
    target.close()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """A target that takes a request and never answers."""
    with Hanging() as target:
        yield target


def wait_for(condition: Callable[[], object]) -> bool:
    """Look until it holds. For files of another process, which nothing announces."""
    never = threading.Event()
    return any(condition() or never.wait(0.02) for _ in range(int(PATIENCE / 0.02)))


def put(client: Client, name: str) -> None:
    client.request("PUT", f"/v1/default/aliases/{name}", json={"spec": {"command": f"echo {name}"}})


class Load:
    """Writers that note which of their writes were acknowledged."""

    def __init__(self, daemon: Daemon, *, prefix: str = "load", writers: int = 4) -> None:
        self.acknowledged: list[str] = []
        self._prefix = prefix
        self._grown = threading.Condition()
        self._threads = [threading.Thread(target=self._write, args=(daemon.client(), who)) for who in range(writers)]
        for thread in self._threads:
            thread.start()

    def _write(self, client: Client, who: int) -> None:
        number = 0
        with suppress(RegistryError):
            while True:
                number += 1
                name = f"{self._prefix}-{who}-{number}"
                put(client, name)
                with self._grown:
                    self.acknowledged.append(name)
                    self._grown.notify_all()

    def until(self, count: int) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.acknowledged) >= count, PATIENCE)

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)

    def missing(self, daemon: Daemon) -> list[str]:
        client, found, page = daemon.client(), set(), None
        while True:
            reply = client.request("GET", "/v1/default/aliases", query={"limit": 1000, "page": page}).json()
            found |= {item["name"] for item in reply["items"]}
            page = reply.get("next")
            if not page:
                return sorted(set(self.acknowledged) - found)


class Receiver:
    """A target that notes the name of each alias it was sent."""

    def __init__(self) -> None:
        names: set[str] = set()
        grown = threading.Condition()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with grown:
                    names.add(json.loads(body)["subject"].removeprefix("alias/default/"))
                    grown.notify_all()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.names, self._grown = names, grown
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def await_all(self, names: list[str]) -> None:
        """Until each of them has come."""
        with self._grown:
            assert self._grown.wait_for(lambda: self.names.issuperset(names), PATIENCE), set(names) - self.names

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Hanging:
    """A target that takes a request and never answers."""

    def __enter__(self) -> Self:
        self.reached = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/"
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        return self

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._held.append(connection)
                self.reached.set()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for each in self._held:
            each.close()
