"""make_venv.py runtime|dev: makes or renews .venv with exactly the files that requirements*.txt pin by hash.

Run by setup.sh with a Python >= 3.11 and nothing else installed. Uses uv where there is one, else pip. Harmless to
repeat; two at once wait for one another. Progress and errors go to stderr, all that the installers say to .venv.log.
`--usable` answers by exit code whether the running Python can run the program.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = ROOT / ".venv.log"
LOCK = ROOT / ".venv.lock"
REQUIREMENTS = {"runtime": ROOT / "requirements.txt", "dev": ROOT / "requirements-dev.txt"}
# What would send the installers somewhere else than into .venv.
FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_TARGET", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "VIRTUAL_ENV")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
STEP = re.compile(r"^(?:Collecting|Processing(?: \S*/)?|Requirement already satisfied:| [+~])\s*([A-Za-z0-9._]+)")
OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|name resolution|getaddrinfo|Network is unreachable|ConnectTimeout"
    r"|Max retries|Connection refused|ProxyError|dns error|error sending request|tcp connect error|Read timed out",
    re.IGNORECASE,
)


class SetupError(Exception):
    """Set-up cannot go on; the text is the one line that the user sees."""


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if arguments == ["--usable"]:
        return 0 if usable() else 1
    if len(arguments) != 1 or arguments[0] not in REQUIREMENTS:
        say("usage: setup.sh runtime|dev")
        return 2
    try:
        with one_at_a_time():
            if stamped(arguments[0]):
                renew_stamps(arguments[0])
            else:
                make(arguments[0])
    except SetupError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"cannot make .venv: {error}; set REGISTRY_PYTHON to a Python that has the packages of requirements.txt")
        return 1
    except KeyboardInterrupt:
        say("stopped; the next start goes on from here")
        return 130
    return 0


def usable() -> bool:
    """Whether the running Python has what pyproject.toml asks for, stamped or made by hand.

    One that is too old does not get here: it has no tomllib.
    """
    if stamped("runtime"):
        with contextlib.suppress(OSError):  # a read-only checkout is asked again next time, and works as well
            renew_stamps("runtime")
        return True
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[<>=!~ ;\[]", line)[0] for line in wanted if ";" not in line]
    try:
        return all(importlib.metadata.version(name) for name in names)
    except importlib.metadata.PackageNotFoundError:
        return False


def make(profile: str) -> None:
    """Brings .venv to `profile` and stamps it. Raises SetupError."""
    started = time.monotonic()
    uv = shutil.which("uv")
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"making .venv with Python {version} and {'uv' if uv else 'pip'} (once, about a minute)")
    for stamp in VENV.glob(".ready-*"):
        stamp.unlink()
    if not fit():
        create()
    requirements = REQUIREMENTS[profile]
    pins = ["--require-hashes", "-r", str(requirements)]
    itself = ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    total = len(PINNED.findall(requirements.read_text()))
    LOG.write_text("")
    if not (uv and all(run([uv, "pip", "install", "--python", str(PYTHON), *what], total) for what in (pins, itself))):
        if uv:
            say("uv could not; trying pip")  # its index may be set up for pip alone
        pip = [str(PYTHON), "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--retries=2"]
        bring_pip()
        for what in (pins, itself):
            if not run([*pip, *what], total):
                raise SetupError(why(LOG.read_text(errors="replace")))
    # Commands start a third faster from byte code, also where Python may not write it as it goes.
    succeeds("-m", "compileall", "-q", str(ROOT / "universal_registry"), str(VENV / "lib"))
    renew_stamps(profile)
    say(f"ready in {time.monotonic() - started:.0f} s")


def fit() -> bool:
    """Whether .venv has a Python that runs and is new enough."""
    check = "import sys; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)"
    return (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-I", "-c", check], capture_output=True, check=False).returncode == 0
    )


def succeeds(*arguments: str) -> bool:
    """Whether .venv's Python ends well with these arguments."""
    command = [str(PYTHON), "-I", *arguments]
    return subprocess.run(command, capture_output=True, env=environment(), check=False).returncode == 0


def create() -> None:
    """An empty .venv in place of what is there. Raises SetupError."""
    command = [sys.executable, "-I", "-m", "venv", "--clear", "--without-pip", str(VENV)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode != 0:
        raise SetupError(f"cannot make {VENV}: {last_line(done.stdout + done.stderr)}")


def bring_pip() -> None:
    """Puts the pip that Python ships into .venv, if none is there. Raises SetupError."""
    if not succeeds("-m", "pip", "--version") and not succeeds("-m", "ensurepip", "--default-pip"):
        raise SetupError(
            f"{sys.executable} has no ensurepip to install with; install it (Debian: apt install python3-venv) or uv"
        )


def run(command: list[str], total: int) -> bool:
    """Runs an installer with its words in the log and its progress on stderr. Whether it succeeded."""
    done = 0
    with LOG.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert child.stdout is not None
        for line in child.stdout:
            log.write(line)
            if step := STEP.match(line):
                done += 1
                show(min(done, total), total, step[1])
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    return child.wait() == 0


def show(done: int, total: int, name: str) -> None:
    """One line that is rewritten on a terminal; elsewhere a line at every tenth package."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K  {done} of {total}  {name}")
        sys.stderr.flush()
    elif done % 10 == 0:
        sys.stderr.write(f"  {done} of {total} packages\n")


def why(log: str) -> str:
    """The cause of a failed install, in one line."""
    if "No space left on device" in log:
        cause = "no space left on the device"
    elif OFFLINE.search(log):
        cause = (
            "the package index cannot be reached (offline?); connect once, or set REGISTRY_PYTHON to a Python that has"
            " the packages of requirements.txt"
        )
    elif "DO NOT MATCH THE HASHES" in log or "Hash mismatch" in log:
        cause = "a downloaded package is not the one that was pinned (its hash differs); nothing of it was installed"
    elif missing := re.search(r"No matching distribution found for (\S+)", log):
        cause = f"the package index has no {missing[1]} for this Python ({sys.version.split()[0]}, {sys.platform})"
    else:
        cause = f"could not install: {last_line(log)}"
    return f"{cause}; see {LOG.name}"


def last_line(text: str) -> str:
    """The last line that names an error (an exception with its text, if there is one), else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    exceptions = [line for line in lines if re.match(r"[A-Za-z.]*(Error|Exception): ", line)]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (exceptions or errors or lines or ["no output"])[-1]


def environment() -> dict[str, str]:
    """The caller's environment without what would lead the installers elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN} | {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1"
    }


def key(profile: str) -> str:
    """What the .venv depends on: the pins, the project's own metadata, and the place it was made in."""
    parts = (REQUIREMENTS[profile].read_bytes(), (ROOT / "pyproject.toml").read_bytes(), os.fsencode(ROOT))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def stamped(profile: str) -> bool:
    """Whether a finished set-up of just this checkout left its mark."""
    stamp = VENV / f".ready-{profile}"
    return PYTHON.exists() and stamp.is_file() and stamp.read_text() == key(profile)


def renew_stamps(profile: str) -> None:
    """Marks `profile` as set up now; dev includes runtime."""
    for name in {"runtime", profile}:
        (VENV / f".ready-{name}").write_text(key(name))


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Holds the set-up lock of this checkout. The kernel frees it when the holder dies, so it is never stale."""
    with LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is making .venv; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """One line to the user."""
    sys.stderr.write(f"universal-registry: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
