"""`ureg` as people run it: real processes, in a home of the test's own, with a daemon and without."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
UREG = [sys.executable, "-P", "-m", "universal_registry"]
PATIENCE = 60.0


class Ureg:
    """Runs commands in one home. `folder`: where they run and where their files are."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environ = dict(environ)

    def __call__(
        self, *words: str | bytes, code: int = 0, stdin: str | bytes = b"", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one to its end; it must exit with `code`."""
        done = self.run(words, stdin.encode() if isinstance(stdin, str) else stdin, env)
        assert done.returncode == code, (words, done)
        assert "Traceback" not in done.stderr
        if code:
            assert done.stderr.strip(), "a failure says why"
        return done

    def run(
        self, words: tuple[str | bytes, ...], stdin: bytes, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run one, whatever it exits with."""
        done = subprocess.run(
            [*UREG, *words],
            cwd=self.folder,
            env=self.environ | dict(env),
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json").stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run one in the background."""
        return subprocess.Popen(
            [*UREG, *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)


def _ureg(folder: Path) -> Ureg:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    places = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "REGISTRY_HOME": str(folder / "home")}
    return Ureg(folder, {**kept, **places, "REGISTRY_LISTEN": "127.0.0.1:0"})


@pytest.fixture
def bare(tmp_path: Path, request: pytest.FixtureRequest) -> Ureg:
    """A home that is not there yet. On SQLite, unless a test asks for "postgresql" (indirectly)."""
    made = _ureg(tmp_path)
    if getattr(request, "param", "sqlite") == "postgresql":
        server = request.getfixturevalue("postgres")
        server.database("fronts")
        made.environ |= server.environment("fronts")
    return made


@pytest.fixture
def offline(bare: Ureg) -> Iterator[Ureg]:
    """A registry without a daemon. One that a test started is ended with it, also when the test failed."""
    bare("init")
    yield bare
    if (bare.home / "run" / "address").exists():
        bare("down")


@pytest.fixture
def online(offline: Ureg) -> Ureg:
    """A registry with a daemon."""
    offline("up")
    return offline


@pytest.fixture(params=["offline", "online"])
def ureg(request: pytest.FixtureRequest) -> Ureg:
    """Both, one after the other: what a command does is the same."""
    found: Ureg = request.getfixturevalue(request.param)
    return found


class Listener:
    """A running `ureg listen`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            assert selector.select(PATIENCE)
        said = process.stderr.readline()
        assert said.startswith("listening on http://"), said
        self.url = said.split()[2]

    def stop(self) -> list[dict[str, Any]]:
        """End it; what came."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def listen(bare: Ureg) -> Iterator[Callable[..., Listener]]:
    """Starts `ureg listen` on a free port."""
    running: list[Listener] = []

    def start(*words: str) -> Listener:
        running.append(Listener(bare.start("listen", ":0", "-o", "ndjson", *words)))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object]], bool]:
    """Looks until something of another process holds, which nothing announces."""
    never = threading.Event()
    return lambda condition: any(condition() or never.wait(0.05) for _ in range(int(PATIENCE / 0.05)))
