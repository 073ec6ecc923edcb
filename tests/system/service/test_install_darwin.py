"""install_registry.sh and `ureg service` as on a Mac: uname, sw_vers, launchctl and sudo are recorded, and where there
is busybox the other tools are not GNU's. It has not run on a Mac."""

from __future__ import annotations

import plistlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
HOME = "/opt/universal-registry"
PLIST = "/Library/LaunchDaemons/com.universal.registry.plist"
INSTALL = ("bash", str(ROOT / "install_registry.sh"), "--venv", sys.prefix)
TOOLS = "cat chmod chown cmp cp dirname env find id ln ls mkdir mv readlink rm rmdir sh"
MAC = "/mac/bin:/usr/bin:/bin:/usr/sbin:/sbin"
# launchctl keeps in a file whether the service is loaded, as launchd does; what it was asked for is written down.
FAKES = {
    "uname": '[ "$1" = -s ] && echo Darwin',
    "sw_vers": "echo 14.5",
    "sudo": 'echo "sudo $*" >>/mac/asked',
    "launchctl": """echo "launchctl $*" >>/mac/asked
case $1 in
  print) [ -e /mac/loaded ] || exit 113; printf '\\tstate = running\\n\\tpid = 4711\\n' ;;
  bootstrap) [ -e "$3" ] || exit 5; : >/mac/loaded ;;
  bootout) rm /mac/loaded ;;
esac""",
}


@pytest.fixture
def mac(machine: Any) -> Any:
    machine.sh("mkdir -p /mac/bin; chmod 777 /mac")
    for name, text in FAKES.items():
        machine.sh(f"cat >/mac/bin/{name} <<'X'\n#!/bin/sh\n{text}\nX\nchmod 755 /mac/bin/{name}")
    machine.sh(f"for tool in {TOOLS}; do [ ! -x /bin/busybox ] || ln -s /bin/busybox /mac/bin/$tool; done")
    machine.run("useradd", "--create-home", "ada")
    return machine


def asked(mac: Any) -> list[str]:
    """What was asked of launchctl and sudo since the last time."""
    lines: list[str] = mac.sh("cat /mac/asked 2>/dev/null || :; rm -f /mac/asked").splitlines()
    return lines


@pytest.mark.slow
def test_the_daemon_of_a_mac(mac: Any) -> None:
    mac.run(*INSTALL, path=MAC, user="ada", HOME="/home/ada")
    assert asked(mac) == [f"sudo UREG_INSTALL_AS_ROOT=1 {' '.join(INSTALL)}"]

    given = {"path": MAC, "SUDO_USER": "ada", "HOME": "/root"}
    said = mac.run(*INSTALL, **given).stdout
    assert f"start it with: sudo launchctl load {PLIST}" in said
    assert mac.sh(f"stat -c '%U:%G %a' {PLIST}") == "root:root 644\n"
    plist = plistlib.loads(mac.sh(f"cat {PLIST}").encode())
    assert (plist["Label"], plist["UserName"], plist["KeepAlive"]) == ("com.universal.registry", "ada", True)
    assert plist["ProgramArguments"] == [f"{HOME}/run_registry.sh"]
    assert plist["StandardOutPath"] == plist["StandardErrorPath"] == "/var/log/universal-registry.log"
    assert mac.sh("stat -c '%U %a' /var/log/universal-registry.log") == "ada 640\n"
    rotation = mac.sh("grep -v '^#' /etc/newsyslog.d/universal-registry.conf").split()
    assert rotation == [
        "/var/log/universal-registry.log", "ada:ada", "640", "8", "10240", "*", "J", f"{HOME}/run/ureg.pid", "1",
    ]  # fmt: skip
    assert mac.sh(f"stat -L -c %U {HOME}/.universal_registry.db {HOME}/config/encryption.key").split() == ["ada", "ada"]

    asked(mac)
    mac.run(*INSTALL, "--now", **given)
    target = "system/com.universal.registry"
    started = [f"launchctl enable {target}", f"launchctl bootstrap system {PLIST}"]
    assert asked(mac) == [f"launchctl print {target}", f"launchctl print {target}", *started]
    status = mac.run("sh", f"{HOME}/ureg", "service", "status", "--on", "Darwin", **given)
    assert "system: runs (pid 4711), starts by itself; running" in status.stdout

    asked(mac)
    mac.run(*INSTALL, **given)  # an upgrade stops it, and starts it again
    stopped = [f"launchctl print {target}", f"launchctl bootout {target}"]
    assert asked(mac) == [*stopped, f"launchctl print {target}", *started]
    mac.run("bash", f"{HOME}/install_registry.sh", "--uninstall", **given)
    assert asked(mac) == stopped
    assert mac.run("test", "-e", PLIST, check=False).returncode == 1
    assert mac.run("test", "-s", f"{HOME}/config/encryption.key", check=False).returncode == 0


@pytest.mark.slow
def test_an_agent_of_one_user(mac: Any) -> None:
    given = {"path": MAC, "user": "ada", "HOME": "/home/ada"}
    mac.run(*INSTALL, "--user", "--now", **given)
    path = "/home/ada/Library/LaunchAgents/com.universal.registry.plist"
    plist = plistlib.loads(mac.sh(f"cat {path}").encode())
    assert "UserName" not in plist
    assert plist["StandardErrorPath"] == "/home/ada/Library/Logs/universal-registry.log"
    assert plist["EnvironmentVariables"] == {"REGISTRY_HOME": "/home/ada/.local/share/universal-registry"}
    uid = mac.run("id", "-u", user="ada").stdout.strip()
    assert f"launchctl bootstrap gui/{uid} {path}" in asked(mac)


def test_the_script_keeps_to_what_bash_3_2_and_bsd_tools_know() -> None:
    text = (ROOT / "install_registry.sh").read_text()
    newer = (
        r"declare -A|local -n|mapfile|readarray|coproc|&>>|\|&|\$\{[a-z_]+(,,?|\^\^?)\}|\$\{[a-z_]+@|\bwait -n"
        r"|printf '%\("
    )
    gnu = r"readlink -f|sed -i |cp -a|cp --|stat -c|date -d|grep -P|mktemp --|-printf|ln -sfn|install -D|xargs -r"
    assert re.findall(newer, text) == []
    assert re.findall(gnu, text) == []


def test_the_plist_is_whole() -> None:
    plist = plistlib.loads((ROOT / "deploy/registry.plist").read_bytes())
    assert plist["Label"] == "com.universal.registry"
    assert plist["RunAtLoad"] is plist["KeepAlive"] is True
    assert plist["Umask"] == 0o027
