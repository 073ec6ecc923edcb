"""install_registry.sh and the unit under a systemd that has booted: this machine's files under a layer that takes all
writes, in a container of systemd-nspawn with a network of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
VENV = Path(sys.prefix)
HOME = "/opt/universal-registry"
STATE = "/var/lib/universal-registry"
UNIT = "universal-registry"
INSTALL = ("bash", str(ROOT / "install_registry.sh"), "--venv", "/opt/venv")
PATIENCE = 30
# The unit lets nothing of /home and /root be seen, where this Python may stand: it is shown elsewhere.
_BOOT = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/up" "$1/work" "$1/root"
root=$1/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$root"
if ! [ "$2/ureg" -ef "$root/$2/ureg" ]; then mkdir -p "$root/$2"; mount --bind "$2" "$root/$2"; fi
mkdir -p "$root/opt/python" "$root/opt/venv/bin"
mount --bind "$4" "$root/opt/python"
ln -s "/opt/python/bin/$5" "$root/opt/venv/bin/python"
ln -s "$3/lib" "$root/opt/venv/lib"
printf 'home = /opt/python/bin\\n' >"$root/opt/venv/pyvenv.cfg"
echo /opt/python/lib >"$root/etc/ld.so.conf.d/00-python.conf"
chroot "$root" ldconfig
folder=$3
while [ -n "$folder" ]; do chmod o+x "$root$folder" || :; folder=${folder%/*}; done
: >"$root/etc/machine-id"
rm -rf "$root/etc/systemd/system/$6.service" "$root/opt/$6"
exec systemd-nspawn --quiet --directory="$root" --register=no --keep-unit --private-network --resolv-conf=off \\
  --timezone=off --link-journal=no --console=pipe --boot systemd.unit=multi-user.target
"""


class Booted:
    """A machine that has come up."""

    def __init__(self, folder: Path) -> None:
        self._groups = {path: path.exists() for path in _groups()}
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._nspawn = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _BOOT, "sh", folder, ROOT, VENV, sys.base_prefix, python, UNIT],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._first = 0
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for _ in range(4 * PATIENCE):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(timeout=0.25)
                break
            with contextlib.suppress(FileNotFoundError):
                self._first = int((children.read_text().split() or ["0"])[0])
            if self._first and self.run("systemctl", "is-active", "multi-user.target", check=False).returncode == 0:
                return
        self.close()
        assert self._nspawn.stdout is not None
        pytest.skip(f"no systemd boots here: {' '.join(self._nspawn.stdout.read().split()) or 'it did not come up'}")

    def run(self, *words: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """A command in it, as root. `check`: it must end with 0."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._first), "--all", "/usr/bin/env", "-i",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
             *(f"{name}={value}" for name, value in env.items()), *words],
            capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, (words, done.returncode, done.stdout, done.stderr, self._why())
        return done

    def _why(self) -> str:
        return self.run("journalctl", "-u", UNIT, "-n", "20", "--no-pager", "-o", "cat", check=False).stdout

    def shown(self, name: str) -> str:
        """A property of the service."""
        return self.run("systemctl", "show", "--value", "--property", name, UNIT).stdout.strip()

    def until(self, condition: str) -> None:
        """Wait until a line of sh, run in it, succeeds."""
        waiting = f"until {condition}; do read -r _ </proc/uptime; done"
        self.run("timeout", str(PATIENCE), "sh", "-c", waiting)

    def close(self) -> None:
        """Its processes end with its first one, what was written with its mounts, and its groups are taken away."""
        if self._first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first, 9)
        else:
            self._nspawn.kill()
        self._nspawn.wait(timeout=PATIENCE)
        for path, was in self._groups.items():
            if not was and path.exists():
                for each in (*sorted(path.rglob("*/"), reverse=True), path):
                    with contextlib.suppress(OSError):
                        each.rmdir()


def _groups() -> list[Path]:
    """What nspawn makes of our own control groups."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for base in ("systemd", "unified", "") if names in ("", "name=systemd") else ():
            found += [Path("/sys/fs/cgroup", base, path.lstrip("/"), name) for name in ("payload", "supervisor")]
    return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Booted]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("systemd-nspawn", "nsenter", "unshare"))):
        pytest.skip("only root can boot a systemd, with systemd-nspawn, nsenter and unshare")
    if ROOT.is_relative_to("/tmp") or ROOT.is_relative_to("/var/tmp"):
        pytest.skip(f"{ROOT} is below a folder of which the unit has one of its own (PrivateTmp)")
    made = Booted(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_systemd_starts_watches_upgrades_and_removes_it(machine: Booted) -> None:
    """In one test, since two machines would share their control groups."""
    said = machine.run(*INSTALL).stdout
    assert "start it, now and at each boot, with: sudo systemctl enable --now universal-registry" in said
    assert machine.run("ureg", "service", "status", check=False).returncode == 1

    machine.run("systemctl", "enable", "--now", UNIT)  # returns when it is ready
    assert machine.run("ureg", "service", "status").stdout.startswith("system: runs (pid ")
    assert "queue depth 0" in machine.shown("StatusText")
    assert machine.shown("WatchdogUSec") == "2min"
    said = machine.run("ureg", "set", "alias", "gs", "command=git status").stdout
    assert said == "alias/default/gs created, revision 1\n"
    health = machine.run("curl", "-fsS", "http://localhost:8080/health/ready", check=False)
    assert health.returncode == 0 or shutil.which("curl") is None, health
    _reload(machine)
    _watch(machine)
    _take_the_key_as_a_credential(machine)

    pid = machine.shown("MainPID")
    said = machine.run(*INSTALL).stdout
    assert "stopping the service for the upgrade" in said
    assert machine.shown("ActiveState") == "active"
    assert machine.shown("MainPID") != pid
    assert "git status" in machine.run("ureg", "get", "alias", "gs").stdout

    machine.run("systemctl", "stop", UNIT)
    assert (machine.shown("ActiveState"), machine.shown("Result")) == ("inactive", "success")
    assert machine.run("ureg", "service", "status", check=False).returncode == 1
    machine.run("systemctl", "start", UNIT)
    machine.run("bash", f"{HOME}/install_registry.sh", "--uninstall", "--purge")
    assert machine.run("systemctl", "cat", UNIT, check=False).returncode != 0
    for path in (HOME, STATE, "/etc/universal-registry"):
        assert machine.run("test", "-e", path, check=False).returncode == 1, path
    _serve_one_user(machine)


def _serve_one_user(machine: Booted) -> None:
    machine.run("useradd", "--create-home", "ada")
    uid = machine.run("id", "-u", "ada").stdout.strip()
    machine.run("systemctl", "start", f"user@{uid}.service")
    as_ada = ("setpriv", "--reuid=ada", "--regid=ada", "--init-groups")
    env = {"HOME": "/home/ada", "USER": "ada", "XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    assert "the service runs" in machine.run(*as_ada, *INSTALL, "--user", "--now", **env).stdout
    status = machine.run(*as_ada, "/home/ada/.local/bin/ureg", "service", "status", **env).stdout
    assert re.match(r"user: runs \(pid \d+\), starts by itself; queue depth 0,", status)
    script = "/home/ada/.local/share/universal-registry/install_registry.sh"
    machine.run(*as_ada, "bash", script, "--user", "--uninstall", "--purge", **env)
    assert machine.run(*as_ada, "systemctl", "--user", "cat", UNIT, check=False, **env).returncode != 0


def _reload(machine: Booted) -> None:
    """It goes on, and opens its log anew."""
    pid = machine.shown("MainPID")
    machine.run("mv", "/var/log/universal-registry/registry.log", "/var/log/universal-registry/registry.log.1")
    machine.run("systemctl", "reload", UNIT)
    assert machine.shown("MainPID") == pid
    machine.until("test -s /var/log/universal-registry/registry.log")


def _watch(machine: Booted) -> None:
    """A daemon that hangs, and one that is killed, is started anew; what was acknowledged is there."""
    machine.run("mkdir", "-p", f"/run/systemd/system/{UNIT}.service.d")
    words = f"printf '[Service]\\nWatchdogSec=2s\\n' >/run/systemd/system/{UNIT}.service.d/watchdog.conf"
    machine.run("sh", "-c", f"{words}; systemctl daemon-reload; systemctl restart {UNIT}")
    for signal, times in (("STOP", "1"), ("KILL", "2")):
        pid = machine.shown("MainPID")
        machine.run("kill", f"-{signal}", pid)
        machine.until(f"[ $(systemctl show --value -p NRestarts {UNIT}) = {times} ]")
        machine.until(f"systemctl is-active --quiet {UNIT}")
        assert machine.shown("MainPID") != pid
    assert "git status" in machine.run("ureg", "get", "alias", "gs").stdout


def _take_the_key_as_a_credential(machine: Booted) -> None:
    key = f"{HOME}/config/encryption.key"
    machine.run("install", "-D", "-m", "0600", key, "/etc/credstore/universal-registry.key")
    machine.run("mv", key, "/root/kept.key")
    machine.run("systemctl", "restart", UNIT)
    assert "git status" in machine.run("ureg", "get", "alias", "gs").stdout
    assert machine.run("test", "-e", key, check=False).returncode == 1, "no other key was made"
    machine.run("mv", "/root/kept.key", key)
