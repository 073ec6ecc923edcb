"""systemd and launchd: the few things that are asked of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from universal_registry.cli.service_layout import LABEL, NAME, Layout
from universal_registry.kernel.errors import RegistryError

_UNIT = f"{NAME}.service"
_SECONDS = 700.0  # longer than the unit's own time to start


class State(NamedTuple):
    """What the manager says of the service. `running`: a process of it is there. `says`: its status line, or why the
    manager could not be asked. `pid`: 0 when none runs."""

    running: bool
    enabled: bool
    pid: int
    says: str


class Manager:
    """The manager of a layout's service. A trial below another folder has none, nor has a machine without one."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        domain = "system" if layout.system else f"gui/{os.getuid()}"
        self._target = f"{domain}/{LABEL}"
        self._domain = domain

    @property
    def is_there(self) -> bool:
        """Whether there is one to talk to."""
        if self._layout.base != Path("/"):
            return False
        if self._layout.darwin:
            return True
        if not Path("/run/systemd/system").is_dir():
            return False
        return self._layout.system or self._quiet("systemctl", "--user", "show-environment").returncode == 0

    def reload(self) -> None:
        """Make it read its files again. Raises RegistryError with its words."""
        if not self._layout.darwin:
            self._run("systemctl", *self._user(), "daemon-reload")

    def start(self) -> None:
        """Start the service now, or anew, and at each boot. Raises RegistryError with the manager's words."""
        if self._layout.darwin:
            if self._quiet("launchctl", "print", self._target).returncode == 0:
                self._run("launchctl", "bootout", self._target)
            self._run("launchctl", "enable", self._target)
            self._run("launchctl", "bootstrap", self._domain, str(self._layout.unit.path))
        else:
            self._run("systemctl", *self._user(), "enable", _UNIT)
            self._run("systemctl", *self._user(), "restart", _UNIT)

    def end(self) -> None:
        """Stop the service, if it runs, and for good. Raises RegistryError with the manager's words."""
        if self._layout.darwin:
            if self._quiet("launchctl", "print", self._target).returncode == 0:
                self._run("launchctl", "bootout", self._target)
        else:
            self._run("systemctl", *self._user(), "disable", "--now", _UNIT)

    def state(self) -> State:
        """What it says of the service."""
        if not self.is_there:
            return State(False, False, 0, "no service manager runs here")
        if self._layout.darwin:
            return _of_launchd(self._quiet("launchctl", "print", self._target))
        shown = self._quiet(
            "systemctl", *self._user(), "show", _UNIT, "-p", "ActiveState,UnitFileState,MainPID,StatusText"
        )
        return _of_systemd(shown)

    def _user(self) -> tuple[str, ...]:
        return () if self._layout.system else ("--user",)

    def _quiet(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(words, 127, "", str(error))

    def _run(self, *words: str) -> None:
        done = self._quiet(*words)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()] or [f"it ended with {done.returncode}"]
            hint = "journalctl -u universal-registry -n 50 --no-pager" if self._layout.system else None
            raise RegistryError(f"{' '.join(words)} failed: {said[-1].strip()}", hint=hint)


def _of_systemd(shown: subprocess.CompletedProcess[str]) -> State:
    found = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    if shown.returncode != 0:
        return State(False, False, 0, " ".join(shown.stderr.split()))
    state = found.get("ActiveState", "")
    says = found.get("StatusText", "") or state
    return State(
        state in ("active", "reloading"),
        found.get("UnitFileState", "").startswith("enabled"),
        int(found.get("MainPID") or 0),
        says,
    )


def _of_launchd(shown: subprocess.CompletedProcess[str]) -> State:
    if shown.returncode != 0:
        return State(False, False, 0, "not loaded")
    found = {}
    for line in shown.stdout.splitlines():
        name, mark, value = line.strip().partition(" = ")
        if mark and name not in found:
            found[name] = value
    pid = int(found["pid"]) if found.get("pid", "").isdigit() else 0
    return State(found.get("state") == "running", True, pid, found.get("state", "loaded"))
