"""`ureg up` and `ureg down`: a daemon of one's own in the background, and its end."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from universal_registry.client.http import Client, daemon_addresses, find_daemon
from universal_registry.kernel.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    RegistryError,
    TimedOut,
    Unreachable,
    UsageError,
)
from universal_registry.kernel.settings import Places, Settings
from universal_registry.runner.ports import DAEMON
from universal_registry.storage.lock import is_held, read_holder

START_SECONDS = 10.0
_SERVE = (sys.executable, "-P", "-m", "universal_registry", "serve")  # -P: no module out of the current folder
_STOP_MARGIN = 10.0
_LOOK_SECONDS = 0.02
_NOT_OURS = "stop its daemon as the user who started it, or as root"
_BY_CODE = {each.exit_code: each for each in (RegistryError, UsageError, NotFound, Forbidden, Conflict, Invalid)}


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that answers, at its socket and its TCP address if it has one. `already`: it ran before."""

    pid: int
    addresses: tuple[str, ...]
    already: bool


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """The process that was stopped; None when none ran."""

    pid: int | None


def up(settings: Settings, environ: Mapping[str, str]) -> Started:
    """Start a daemon in the background unless one runs, and wait until it is ready.

    `environ`: the environment it gets, which must say its home. Raises the reason when it does not start, TimedOut.
    """
    places = Places(settings.home)
    if (running := _running(places)) is not None:
        return running
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package_root, environ.get("PYTHONPATH"))))
    child = subprocess.Popen(  # noqa: S603 - our own program
        _SERVE,
        env={**environ, "PYTHONPATH": path},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stderr is not None
    try:
        return _await_ready(child, places)
    finally:
        # The daemon notices that nobody reads its standard error any more, and writes to its log alone.
        child.stderr.close()
        if child.poll() is None:
            child.returncode = 0  # it is to outlive us, so nothing waits for it


def down(settings: Settings) -> Stopped:
    """Stop the daemon of this home, and wait for its end. Raises Conflict, Forbidden, TimedOut."""
    places = Places(settings.home)
    holder = read_holder(places.lock)
    if holder is None:
        _check_ours(places)
        if is_held(places.lock):
            raise Conflict(f"the store in {places.home} is in use by a process that has no name", hint="ureg status")
        return Stopped(pid=None)
    if holder.role != DAEMON:
        raise Conflict(f"process {holder.pid} that uses {places.home} is no daemon but a {holder.role}")
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:
        return Stopped(pid=None)
    except PermissionError:
        raise Forbidden(f"process {holder.pid} is not yours", hint=_NOT_OURS) from None
    seconds = settings.drain_timeout + _STOP_MARGIN
    until = time.monotonic() + seconds
    while read_holder(places.lock) == holder:
        if time.monotonic() > until:
            hint = f"its log is {places.log}; kill -9 {holder.pid} loses nothing that was acknowledged"
            raise TimedOut(f"process {holder.pid} has not ended within {seconds:.0f} s", hint=hint)
        time.sleep(_LOOK_SECONDS)
    return Stopped(pid=holder.pid)


def _check_ours(places: Places) -> None:
    """Raises Forbidden when the lock is not ours to look at: what runs there is not ours to stop."""
    try:
        places.lock.open("rb").close()
    except PermissionError:
        raise Forbidden(f"the registry in {places.home} is not yours", hint=_NOT_OURS) from None
    except OSError:
        return  # no lock: nothing runs


def _running(places: Places) -> Started | None:
    """The daemon of this home, if one is ready."""
    holder = read_holder(places.lock)
    if holder is None or holder.role != DAEMON or not _is_ready(places):
        return None
    return Started(pid=holder.pid, addresses=daemon_addresses(places), already=True)


def _is_ready(places: Places) -> bool:
    address = find_daemon(places)
    if address is None:
        return False
    try:
        with Client(address, timeout=2.0) as client:
            return client.request("GET", "/health/ready").status == 200
    except RegistryError:
        return False


def _await_ready(child: subprocess.Popen[bytes], places: Places) -> Started:
    """Look until it answers. A child that ends while another daemon holds the store lost a race: that one counts."""
    said = _Said(child)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        said.read(_LOOK_SECONDS)
        ended = child.poll() is not None
        holder = read_holder(places.lock)
        if holder is not None and holder.role == DAEMON and (ended or holder.pid == child.pid):
            if _is_ready(places):
                already = holder.pid != child.pid
                return Started(pid=holder.pid, addresses=daemon_addresses(places), already=already)
        elif ended:
            said.read(0.0)
            raise _not_started(child.returncode, said.last(), places)
    hint = f"its log is {places.log}; `ureg down` stops it"
    raise TimedOut(f"the daemon was started but is not ready within {START_SECONDS:.0f} s", hint=hint)


def _not_started(code: int, line: str, places: Places) -> RegistryError:
    reason = line.removeprefix("ureg: ") or f"it ended with {code}"
    # It ended for a reason of its own, which is ours then; a signal or the like leaves only that nothing answers.
    error = _BY_CODE.get(code, Unreachable)
    return error(f"the daemon did not start: {reason}", hint=None if line else f"its log is {places.log}")


class _Said:
    """What the starting daemon writes to its standard error."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None
        self._descriptor = child.stderr.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._descriptor, selectors.EVENT_READ)
        self._data = b""
        self._is_open = True

    def read(self, seconds: float) -> None:
        """What comes within that time; to its end once it has ended."""
        if not self._is_open:
            time.sleep(seconds)
        while self._is_open and self._selector.select(seconds):
            piece = os.read(self._descriptor, 65536)
            self._is_open = bool(piece)
            self._data = (self._data + piece)[-65536:]
            if seconds:
                return

    def last(self) -> str:
        """Its last line for people: those of its log are JSON."""
        lines = [line for line in self._data.decode("utf-8", "replace").splitlines() if line and line[0] != "{"]
        return lines[-1] if lines else ""
