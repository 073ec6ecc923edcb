"""The machine: what it is, how busy others keep it, and the processes of a run."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-bench"
HOST = "127.0.0.1"
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 30.0


class NotHere(Exception):
    """Why a peer cannot be measured on this machine."""


def say(text: str) -> None:
    """Progress, to stderr: stdout is for the table."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder on a real disk, removed afterwards. BENCH_TMP chooses another place than /var/tmp."""
    folder = Path(tempfile.mkdtemp(prefix="ureg-bench-", dir=os.environ.get("BENCH_TMP", "/var/tmp")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def facts(folder: Path) -> dict[str, Any]:
    """What belongs beside every figure."""
    return {
        "cores": os.cpu_count(),
        "load1": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "append_and_sync_ms": round(append_and_sync(folder) * 1000, 3),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def append_and_sync(folder: Path) -> float:
    """Seconds that 500 bytes take to the disk, median of 200."""
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(bytes(500))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return sorted(took)[100]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def busy_seconds() -> float:
    """CPU seconds that all processes together have used since the machine started (Linux; elsewhere 0)."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(words[at]) for at in range(11, 15)) / _TICKS


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def memory_mb(pid: int) -> float:
    """Resident memory of a process, in MB of 10^6."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise NotHere("no VmRSS")


def environment(**more: str) -> dict[str, str]:
    """That of a process of the run: nothing of the caller's registry gets in."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the run; ended when the block ends."""
    with log.open("ab") as said:
        options = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said, "env": environment(), **options}
        process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """In order, or by force."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until somebody listens there. Raises NotHere when the process ends or takes too long."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise NotHere(f"{process.args!r} does not listen on {port}")
