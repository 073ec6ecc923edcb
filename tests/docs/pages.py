"""The pages of docs/ as things that run: their fenced blocks, and a home in which they do."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENDLESS = re.compile(
    r"^(curl -N |ureg get .* -w|ureg stream (tail|receive)|ureg top$|ureg follow(?!.* --(once|dry-run)))"
)
"""Lines that go on until somebody ends them: they are ended after they have said something."""

_FIRST_WORD = """
import builtins, os
def print(*words):
    builtins.print(*words, flush=True)
    os._exit(0)
"""


class Block(NamedTuple):
    """A fenced block of a page. `number`: among those of the page, from 0."""

    number: int
    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The page's blocks, in order."""
    found = enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")))
    return [Block(number, language, text) for number, (language, text) in found]


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Home:
    """A home of its own, its `ureg` on the PATH; blocks run in it one after the other, as a reader would paste them."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        programs = folder / "bin"
        programs.mkdir(parents=True)
        (programs / "ureg").symlink_to(ROOT / "ureg")
        self.environ = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "REGISTRY_HOME": str(folder),
            "REGISTRY_LISTEN": f"127.0.0.1:{self.port}",
            "REGISTRY_PYTHON": sys.executable,
            **(more or {}),
        }

    def sh(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run lines as `sh -e`; those that go on for ever are ended when they have said something."""
        said: list[str] = []
        for endless, lines in groupby(
            text.replace("localhost:8080", f"127.0.0.1:{self.port}").split("\n"), _is_endless
        ):
            if endless:
                said.extend(self._until_said(line) for line in lines)
                continue
            done = self._run(["sh", "-e", "-c", "\n".join(lines)])
            said.append(done.stdout)
            if done.returncode:
                return done
        return subprocess.CompletedProcess(text, 0, "".join(said), "")

    def python(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a program; one that follows changes is ended after it has told one."""
        if "async for " not in text:
            return self._run([sys.executable, "-c", text])
        return self._run([sys.executable, "-c", _FIRST_WORD + text])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=100, check=False
        )

    def _until_said(self, line: str) -> str:
        """Run the line, changing records meanwhile, until it says something; then Ctrl-C."""
        running = subprocess.Popen(
            ["sh", "-c", line], cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, start_new_session=True
        )
        assert running.stdout is not None
        try:
            for number in range(100):
                if select.select([running.stdout], [], [], 0.2)[0]:
                    return os.read(running.stdout.fileno(), 65536).decode() or f"nothing from {line}"
                self._run(["ureg", "set", "alias", "gs", f"command=ls -{number}"])
                self._run(["ureg", "set", "service", "shop", f"port={number}"])
            raise AssertionError(f"said nothing: {line}")
        finally:
            os.killpg(running.pid, signal.SIGINT)
            running.stdout.close()
            running.wait(20)

    def close(self) -> None:
        """Stop its daemon, and those of homes in it."""
        for address in self.folder.glob("**/run/address"):
            self.sh(f"ureg down --home '{address.parent.parent}'")


def _is_endless(line: str) -> bool:
    return ENDLESS.match(line) is not None
