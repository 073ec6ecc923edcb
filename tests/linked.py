"""Registries of tests that are linked: real daemons, driven by commands and by their API."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from universal_registry.client.http import Client
from universal_registry.kernel.errors import RegistryError

PATIENCE = 30.0


def until(condition: Callable[[], Any], what: str = "", patience: float = PATIENCE) -> Any:
    """Look until it holds; what it says then."""
    never = threading.Event()
    for _ in range(int(patience / 0.05)):
        try:
            if found := condition():
                return found
        except RegistryError:
            pass  # a daemon that is just starting or stopping
        never.wait(0.05)
    raise AssertionError(f"never: {what or condition}")


class Node:
    """One registry: its home, its daemon while it runs, and what is asked of it. `env`: of daemon and commands."""

    def __init__(self, home: Path, start: Callable[..., Any], ureg: Callable[..., Any], env: dict[str, str]) -> None:
        self.home = home
        self.env = {"XDG_STATE_HOME": str(home.parent / f"{home.name}-state"), **env}
        self.daemon: Any = None
        self._start = start
        self._ureg = ureg

    def up(self, **more: Any) -> Node:
        self.daemon = self._start(self.home, **{**self.env, **more}).ready()
        return self

    @property
    def client(self) -> Client:
        return self.daemon.client()

    @property
    def address(self) -> str:
        return self.daemon.places.address.read_text().splitlines()[1]

    def ureg(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._ureg(self.home, *words, **self.env)

    def ok(self, *words: str) -> str:
        done = self.ureg(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return str(done.stdout)

    def set(self, name: str, **spec: Any) -> None:
        self.client.request("PATCH", f"/v1/default/aliases/{name}", json={"spec": spec})

    def spec(self, name: str) -> dict[str, Any] | None:
        found = self.client.request("GET", "/v1/default/aliases").json()["items"]
        return next((dict(each["spec"]) for each in found if each["name"] == name), None)

    def names(self) -> set[str]:
        found, page = set(), None
        while True:
            answer = self.client.request("GET", "/v1/default/aliases", query={"limit": 1000, "page": page}).json()
            found |= {each["name"] for each in answer["items"]}
            page = answer.get("next")
            if page is None:
                return found

    def peers(self) -> dict[str, Any]:
        return dict(self.client.request("GET", "/v1/-/peers").json())

    def peer(self, name: str) -> dict[str, Any]:
        return next(dict(each) for each in self.peers()["items"] if each["peer"] == name)

    def conflicts(self) -> list[dict[str, Any]]:
        return list(self.client.request("GET", "/v1/-/conflicts").json()["items"])

    def invite(self, name: str = "", **more: Any) -> str:
        body = {"address": f"http://{self.address}", "name": name, **more}
        return str(self.client.request("POST", "/v1/-/peers/invitations", json=body).json()["line"])

    def join(self, line: str, name: str = "") -> dict[str, Any]:
        body = {"line": line, "name": name, "address": f"http://{self.address}"}
        return dict(self.client.request("POST", "/v1/-/peers", json=body).json())

    def root(self) -> str | None:
        found = self.peers()
        return str(found["root"]) if found["converged"] else None

    def said(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.daemon.events() if each["event"] == event]

    def frames(self) -> int:
        return sum(sum(each["frames"] or ()) for each in self.peers()["items"])


def pair(one: Node, other: Node, *, address: str = "", scope: str = "", lasts: str = "1h") -> None:
    """`other` joins `one`; each is called by the name of its home."""
    more = {"lasts": lasts, **({"address": address} if address else {})}
    other.join(one.invite(other.home.name, scope=scope, **more), one.home.name)


def converged(*nodes: Node, patience: float = PATIENCE) -> str:
    """Wait until all say that they hold the same, and do; the root."""

    def same() -> str | None:
        roots = {node.root() for node in nodes}
        return roots.pop() if len(roots) == 1 else None

    try:
        return str(until(same, patience=patience))
    except AssertionError:
        raise AssertionError(f"never one root: {[json.dumps(node.peers()) for node in nodes]}") from None
