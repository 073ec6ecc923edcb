"""A daemon of the demo's own, in a folder that goes with it. It can be killed and started again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from universal_registry.client.http import Client, find_daemon
from universal_registry.kernel.errors import TimedOut, Unreachable
from universal_registry.kernel.settings import Places
from universal_registry.kernel.world import World

START_SECONDS = 20.0
STOP_SECONDS = 15.0


class Daemon:
    """`settings`: environment variables for it. Everything it writes lies in `home`."""

    def __init__(self, environ: Mapping[str, str], settings: Mapping[str, str], world: World) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ureg-demo-"))
        self._world = world
        kept = {name: value for name, value in environ.items() if not name.startswith("REGISTRY_")}
        self._environ = {**kept, **settings, "REGISTRY_HOME": str(self.home), "REGISTRY_LISTEN": "127.0.0.1:0"}
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = self.home / "daemon.err"
        self.client: Client

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `ureg` itself in this home, as the user would."""
        return subprocess.run(
            [*_ureg(), *words], env=self._environ, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self) -> float:
        """Start it; the seconds until it was ready. Raises Unreachable with what it said, TimedOut."""
        began = self._world.monotonic()
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*_ureg(), "serve"], env=self._environ, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )
        self.wait_for(lambda: find_daemon(Places(self.home)) is not None, START_SECONDS, "the daemon to be ready")
        address = find_daemon(Places(self.home))
        assert address is not None
        self.client = Client(address)
        return self._world.monotonic() - began

    def kill(self) -> None:
        """As a power cut would: no warning, no last words."""
        assert self._process is not None
        self.client.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=STOP_SECONDS)

    def wait_for(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Poll until the condition holds. Raises TimedOut, Unreachable when the daemon has ended meanwhile."""
        deadline = self._world.monotonic() + seconds
        pause = _Pause()
        while not condition():
            if self._process is not None and self._process.poll() is not None:
                raise Unreachable(f"the daemon ended with {self._process.returncode}: {self._last_words()}")
            if self._world.monotonic() > deadline:
                raise TimedOut(f"waited {seconds:.0f} s for {what}")
            pause()

    def _last_words(self) -> str:
        lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """Stop it, and remove all that it wrote."""
        process = self._process
        if process is not None and process.poll() is None:
            self.client.close()
            process.terminate()
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=STOP_SECONDS)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.home)


class _Pause:
    """Short waits between looks at something."""

    def __init__(self) -> None:
        import threading

        self._never = threading.Event()

    def __call__(self) -> None:
        self._never.wait(0.01)


def _ureg() -> Sequence[str]:
    return [sys.executable, "-m", "universal_registry"]
