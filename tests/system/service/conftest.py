"""A machine to install on: this one's files under a layer that takes all writes, in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
VENV = Path(sys.prefix)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOUNTS = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
if ! [ "$2/ureg" -ef "$1/root/$2/ureg" ]; then mkdir -p "$1/root/$2"; mount --bind "$2" "$1/root/$2"; fi
echo up
exec cat
"""


class Machine:
    """Nothing done in it reaches this machine, but for processes, which must be ended in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _MOUNTS, "sh", str(folder), str(ROOT)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            assert self._holder.stderr is not None
            said = self._holder.stderr.read()
            self.close()
            pytest.skip(f"no machine can be made here: {said.strip()}")

    def run(
        self, *words: str, user: str = "root", path: str = PATH, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """A command in it. `check`: it must end with 0."""
        inside = ["nsenter", "--mount", "--target", str(self._holder.pid), "chroot", f"--userspec={user}:"]
        done = subprocess.run(
            [*inside, str(self.folder / "root"), "/usr/bin/env", "-i", f"PATH={path}",
             *(f"{name}={value}" for name, value in env.items()), *words],
            capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done

    def sh(self, script: str, **env: str) -> str:
        """What a script prints."""
        return self.run("sh", "-ec", script, **env).stdout

    def close(self) -> None:
        """Its namespace goes with its last process, and all that was written with it."""
        self._holder.kill()
        self._holder.wait()
        for pipe in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "chroot", "useradd"))):
        pytest.skip("only root can make a machine to install on, with unshare, nsenter, chroot and useradd")
    (tmp_path / "machine").mkdir()
    made = Machine(tmp_path / "machine")
    # This environment's Python may stand in a folder that other users cannot enter.
    python = (VENV / "bin" / "python").resolve()
    for folder in {*python.parents, *VENV.parents}:
        made.run("chmod", "o+x", str(folder), check=False)
    yield made
    made.close()
