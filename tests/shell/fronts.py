"""One registry with a daemon, and the fronts that talk to it, as people run them."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cli" / "registry_cli.sh"
UREG = [sys.executable, "-P", "-m", "universal_registry"]
SHELLS = ("dash", "busybox", "bash", "mksh", "yash", "zsh")


class Done(NamedTuple):
    """What a call came to."""

    code: int
    out: str
    err: str


class Home:
    """A registry. `environ`: what a front is given; C.UTF-8, since yash takes no emoji in the C locale."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
        self.environ = {
            **kept, "HOME": str(folder), "PYTHONPATH": str(ROOT), "REGISTRY_HOME": str(self.home), "LC_ALL": "C.UTF-8",
            "REGISTRY_LISTEN": "127.0.0.1:0", "REGISTRY_PYTHON": sys.executable,
        }  # fmt: skip

    def run(self, *words: str | Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        done = subprocess.run(
            [str(word) for word in words], cwd=self.folder, env=self.environ | dict(env or {}), input=stdin.encode(),
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ureg(self, *words: str, stdin: str = "", **env: str) -> Done:
        return self.run(*UREG, *words, stdin=stdin, env=env)

    def sh(self, shell: Sequence[str], *words: str, stdin: str = "", **env: str) -> Done:
        return self.run(*shell, SCRIPT, *words, stdin=stdin, env=env)

    @staticmethod
    def actor() -> str:
        """As whom the log knows those who come over the socket."""
        return f"uid:{os.getuid()}"

    @property
    def socket(self) -> str:
        return (self.home / "run" / "address").read_text().splitlines()[0]

    def http(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request by the standard library alone."""
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(self.socket)
        try:
            connection.request(
                method, path, None if body is None else json.dumps(body), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.headers.get("content-type", "").startswith("application/x-ndjson"):
            return answer.status, [json.loads(line) for line in data.splitlines()]
        return answer.status, json.loads(data)

    def last_line(self) -> dict[str, Any]:
        """The newest line of the log, without what differs from one write to the next."""
        line = self.http("GET", "/v1/changes?limit=5000")[1][-2]
        record = {name: each for name, each in line.get("record", {}).items() if name != "meta"}
        kept = ("op", "kind", "namespace", "name", "actor", "changed", "payload", "audience")
        return {name: line[name] for name in kept if name in line} | {"record": record}


def shell_command(name: str) -> list[str] | None:
    """How a shell is called; None where it is not installed."""
    found = shutil.which(name)
    if found is None:
        return None
    return [found, "sh"] if name == "busybox" else [found]


def steady(text: str) -> str:
    """Without ids and revisions."""
    return re.sub(r"revision \d+", "revision N", re.sub(r"\b[0-9a-f]{32}\b", "ID", text))
