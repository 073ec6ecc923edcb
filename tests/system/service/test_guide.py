"""The service lines of the deployment guide that the registry's first users have, as they are written there. The rest
of the guide is in tests/system/test_deployment_guide.py.

No service manager runs on the machine that they run on, so what is asked of it is recorded; that systemd takes the unit
and launchd's plist is valid is seen in the other tests here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
LINUX = """
# 1. Install
sudo bash install_registry.sh

# 2. Enable auto-start
sudo systemctl enable universal-registry

# 3. Start service
sudo systemctl start universal-registry

# 4. Check status
sudo systemctl status universal-registry

# 5. View logs
sudo journalctl -u universal-registry -f
"""
MACOS = """
# 1. Install
bash install_registry.sh

# 2. Load launch daemon
sudo launchctl load /Library/LaunchDaemons/com.universal.registry.plist

# 3. Check status
launchctl list | grep universal.registry

# 4. View logs
tail -f /var/log/universal-registry.log
"""
TROUBLE = """
bash -n run_registry.sh
journalctl -u universal-registry -n 50 --no-pager
"""
# The installer takes this environment instead of fetching packages. A unit or plist that is asked for must be there.
FAKES = {
    "bash": f"""[ "$*" != install_registry.sh ] || set -- install_registry.sh --venv {sys.prefix}
exec /bin/bash "$@\"""",
    "sudo": 'exec env "$@"',
    "systemctl": """echo "systemctl $*" >>/asked
[ "$2" != universal-registry ] || [ -e "/etc/systemd/system/$2.service" ]""",
    "journalctl": 'echo "journalctl $*" >>/asked',
    "tail": """[ "$1" = -f ] || exec /usr/bin/tail "$@"
echo "tail $*" >>/asked; [ -e "$2" ]""",
    "launchctl": """echo "launchctl $*" >>/asked
case $1 in
  load) [ -e "$2" ] && : >/loaded ;;
  list) [ ! -e /loaded ] || printf -- '-\\t0\\tcom.universal.registry\\n' ;;
  print) exit 113 ;;
esac""",
}
MAC = {"uname": "echo Darwin", "sw_vers": "echo 14.5"}


def paste(machine: Any, lines: str, fakes: dict[str, str]) -> list[str]:
    """Run the lines in the checkout, as root; what was asked of the service manager and of the logs."""
    machine.sh("mkdir -p /fakes")
    for name, text in fakes.items():
        machine.sh(f"cat >/fakes/{name} <<'X'\n#!/bin/sh\n{text}\nX\nchmod 755 /fakes/{name}")
    path = "/fakes:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    machine.run("bash", "-ec", f"cd {ROOT}\n{lines}", path=path, HOME="/root")
    asked: list[str] = machine.sh("cat /asked").splitlines()
    return asked


@pytest.mark.slow
def test_the_linux_block(machine: Any) -> None:
    asked = paste(machine, LINUX + TROUBLE, FAKES)
    verbs = [f"systemctl {verb} universal-registry" for verb in ("enable", "start", "status")]
    wanted = [*verbs, "journalctl -u universal-registry -f", "journalctl -u universal-registry -n 50 --no-pager"]
    assert [line for line in asked if line in wanted] == wanted
    assert machine.sh("ls /opt/universal-registry/.universal_registry.db")


@pytest.mark.slow
def test_the_macos_block(machine: Any) -> None:
    asked = paste(machine, MACOS, {**FAKES, **MAC})
    plist = "/Library/LaunchDaemons/com.universal.registry.plist"
    assert f"launchctl load {plist}" in asked
    assert asked[-2:] == ["launchctl list", "tail -f /var/log/universal-registry.log"]
