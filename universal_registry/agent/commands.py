"""Commands that the plan allows: lists of words, run without a shell, ended when they take too long."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

from universal_registry.kernel.visible import escaped

_MOST_OUTPUT = 4096
_AGAIN_SECONDS = 0.25


class Commands:
    """Runs them, in folder `/`, with the variables of `environ` and nothing to read. `seconds`: for each."""

    def __init__(self, environ: Mapping[str, str], seconds: float) -> None:
        self._environ = {name: value for name, value in environ.items() if not name.startswith("REGISTRY_")}
        self._seconds = seconds

    def run(self, words: Sequence[str]) -> str:
        """Why it did not do what it should, in one line; empty: it did."""
        with tempfile.TemporaryFile() as output:  # no pipe: what it leaves running may hold that open for ever
            try:
                process = subprocess.Popen(  # noqa: S603 - the words of the machine's own plan
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=self._environ,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                return f"{words[0]} cannot be run: {getattr(error, 'strerror', None) or error}"
            try:
                code = process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"{words[0]} did not end within {self._seconds:g} s"
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            if code == 0:
                return ""
            output.seek(0)
            said = output.read(_MOST_OUTPUT).decode("utf-8", "replace").strip()
        return f"{words[0]} {_ended(code)}" + (f": {escaped(said)[:300]}" if said else "")

    def becomes_well(self, words: Sequence[str], within: float) -> str:
        """As `run`, again and again until it does, or `within` seconds are over."""
        deadline = time.monotonic() + within
        while True:
            why = self.run(words)
            if not why or time.monotonic() >= deadline:
                return why
            time.sleep(_AGAIN_SECONDS)


def _ended(code: int) -> str:
    return f"exited with {code}" if code > 0 else f"was ended by signal {-code}"
