"""install_registry.sh on Linux: as root on a machine of its own, and as a user below a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
VENV = Path(sys.prefix)
HOME = "/opt/universal-registry"
STATE = "/var/lib/universal-registry"
INSTALL = ("bash", str(ROOT / "install_registry.sh"), "--venv", str(VENV))
PATIENCE = 100


@pytest.mark.slow
def test_root_installs_it_twice_runs_it_and_uninstalls_it(machine: Any) -> None:
    said = machine.run(*INSTALL).stdout
    assert "made the account registry" in said
    assert f"start the daemon with: {HOME}/run_registry.sh &" in said  # no systemd runs in there
    names = machine.sh(f"cd {HOME} && ls -d config.py cli/registry_cli.sh ureg *.zsh").split()
    assert {"config.py", "cli/registry_cli.sh", "ureg"} <= set(names)
    modes = machine.sh(
        f"stat -c '%U:%G %a %n' {HOME} {HOME}/config {HOME}/config/encryption.key {STATE}"
        f" {STATE}/.universal_registry.db /etc/universal-registry/env /etc/systemd/system/universal-registry.service"
    )
    assert modes.splitlines() == [
        f"root:root 755 {HOME}",
        f"registry:registry 700 {HOME}/config",
        f"registry:registry 600 {HOME}/config/encryption.key",
        f"registry:registry 750 {STATE}",
        f"registry:registry 640 {STATE}/.universal_registry.db",
        "root:registry 640 /etc/universal-registry/env",
        "root:root 644 /etc/systemd/system/universal-registry.service",
    ]

    daemon = f"nohup setpriv --reuid registry --regid registry --clear-groups {HOME}/run_registry.sh"
    machine.sh(
        f"HOME={STATE} REGISTRY_LISTEN=127.0.0.1:0 {daemon} >/dev/null 2>&1 & "
        f"timeout 60 sh -c 'until [ -s {HOME}/run/address ]; do read -r _ </proc/uptime; done'"
    )
    try:
        machine.run("ureg", "set", "alias", "gs", "command=git status")  # root speaks to it by its socket
        _look_as_a_member(machine)
        _upgrade(machine)
    finally:
        machine.run("ureg", "down", check=False)
    assert machine.run("ureg", "get", "alias", check=False, user="registry", HOME=STATE).stdout.count("git status") == 1
    _uninstall(machine)


def _look_as_a_member(machine: Any) -> None:
    """Members of group registry may read the stores while the daemon runs, with the commands that everybody knows."""
    if shutil.which("sqlite3") is None:
        return
    machine.run("useradd", "--groups", "registry", "ada")
    query = "SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry');"
    words = f"cd {HOME} && sqlite3 .registry_propagation.db \"{query}\" && sqlite3 .universal_registry.db 'SELECT 1;'"
    seen = machine.run("setpriv", "--reuid=ada", "--regid=ada", "--init-groups", "sh", "-ec", words)
    assert seen.stdout.split() == ["0", "1"]
    assert machine.run("setpriv", "--reuid=nobody", "--clear-groups", "sh", "-ec", words, check=False).returncode != 0


def _upgrade(machine: Any) -> None:
    """Over a running daemon, with settings that people changed."""
    machine.sh(f'sed -i \'s/"max_retries": 5/"max_retries": 7/\' {HOME}/config.py')
    machine.sh(f"touch {HOME}/universal_registry/gone.py; echo REGISTRY_LOG_LEVEL=debug >/etc/universal-registry/env")
    said = machine.run(*INSTALL).stdout
    assert "it was started by hand: start it again afterwards" in said
    assert "there already, revision 1" in said
    assert '"max_retries": 7' in machine.sh(f"cat {HOME}/config.py")
    assert machine.sh("cat /etc/universal-registry/env") == "REGISTRY_LOG_LEVEL=debug\n"
    assert machine.run("test", "-e", f"{HOME}/universal_registry/gone.py", check=False).returncode == 1


def _uninstall(machine: Any) -> None:
    machine.run("bash", f"{HOME}/install_registry.sh", "--uninstall")
    left = machine.sh(f"ls -A {HOME}").split()
    kept = {".registry_propagation.db", ".universal_registry.db", "config", "config.py", "logs", "metrics", "run"}
    assert set(left) == kept
    assert machine.run("which", "ureg", check=False).returncode == 1
    machine.run(*INSTALL)
    listed = machine.run("ureg", "get", "alias", check=False, user="registry", HOME=STATE)
    assert "git status" in listed.stdout, listed
    machine.run("bash", f"{HOME}/install_registry.sh", "--uninstall", "--purge")
    gone = (
        HOME,
        STATE,
        "/var/log/universal-registry",
        "/etc/universal-registry",
        "/etc/logrotate.d/universal-registry",
    )
    for path in gone:
        assert machine.run("test", "-e", path, check=False).returncode == 1, path
    assert machine.run("id", "registry", check=False).returncode == 1


@pytest.mark.slow
def test_an_upgrade_by_root_gives_nothing_away_through_a_link_of_the_service(machine: Any) -> None:
    machine.run(*INSTALL)
    machine.sh(f"mkdir /precious; rm -rf {STATE}/run; ln -s /precious {STATE}/run")
    done = machine.run(*INSTALL, check=False)
    assert done.returncode != 0
    assert "is a link; nothing is given away through one" in done.stderr
    assert machine.sh("stat -c %U /precious") == "root\n"


@pytest.mark.slow
def test_what_is_installed_pleases_systemd_and_logrotate(machine: Any) -> None:
    machine.run(*INSTALL)
    share = "/usr/local/share"
    for file in ("man/man1/ureg-get.1", "bash-completion/completions/ureg", "zsh/site-functions/_ureg"):
        machine.run("test", "-s", f"{share}/{file}")
    unit = "/etc/systemd/system/universal-registry.service"
    if machine.run("which", "systemd-analyze", check=False).returncode == 0:
        assert machine.run("systemd-analyze", "--man=no", "verify", unit).stderr == ""
        machine.run("systemd-analyze", "security", "--offline=true", "--threshold=15", unit)
    if machine.run("which", "logrotate", check=False).returncode == 0:
        checked = machine.run("logrotate", "-d", "/etc/logrotate.d/universal-registry")
        assert "error" not in checked.stderr.lower(), checked.stderr


@pytest.mark.slow
def test_a_user_without_root_is_sent_to_sudo_or_to_an_installation_of_his_own(machine: Any) -> None:
    machine.run("useradd", "--create-home", "ada")
    machine.sh("mkdir /fake; printf '#!/bin/sh\\necho \"$@\" >/tmp/sudo-was\\n' >/fake/sudo; chmod 755 /fake/sudo")
    machine.run(*INSTALL, user="ada", path="/fake:/usr/bin:/bin")
    assert machine.sh("cat /tmp/sudo-was") == f"UREG_INSTALL_AS_ROOT=1 {' '.join(INSTALL)}\n"

    env = {"HOME": "/home/ada", "REGISTRY_LISTEN": "127.0.0.1:0"}
    said = machine.run(*INSTALL, "--user", user="ada", **env).stdout
    home = "/home/ada/.local/share/universal-registry"
    assert "registry" in said
    unit = machine.sh("cat /home/ada/.config/systemd/user/universal-registry.service")
    assert f'ExecStart="{home}/run_registry.sh"' in unit
    machine.run("/home/ada/.local/bin/ureg", "up", user="ada", **env)
    try:
        machine.run("/home/ada/.local/bin/ureg", "set", "alias", "gs", "command=git status", user="ada", **env)
        machine.run("test", "-f", f"{home}/.universal_registry.db")
    finally:
        machine.run("/home/ada/.local/bin/ureg", "down", user="ada", **env)
    machine.run("bash", f"{home}/install_registry.sh", "--user", "--uninstall", "--purge", user="ada", **env)
    assert machine.sh("find /home/ada -type f ! -name '.*' ! -path '*/.cache/*' ! -path '*/state/*'") == ""


def run(root: Path, *words: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONDONTWRITEBYTECODE": "1", **env}
    done = subprocess.run(
        ["bash", str(ROOT / "install_registry.sh"), "--root", str(root), *words],
        env=given, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def test_a_trial_touches_nothing_outside_its_folder_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "opt/universal-registry"
    said = run(tmp_path, "--venv", str(VENV)).stdout
    assert "made the account" not in said
    assert (home / ".universal_registry.db").resolve() == tmp_path / "var/lib/universal-registry/.universal_registry.db"
    again = run(tmp_path, "--venv", str(VENV)).stdout
    assert "wrote" not in again
    assert "created" not in again
    run(tmp_path, "--uninstall")
    assert (home / "config/encryption.key").is_file()
    assert not (home / "ureg").exists()
    run(tmp_path, "--uninstall", code=3)
    run(tmp_path, "--venv", str(VENV))
    run(tmp_path, "--uninstall", "--purge")
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_what_an_uninstallation_has_kept_can_be_purged_afterwards(tmp_path: Path) -> None:
    home, stranger = tmp_path / "opt/universal-registry", tmp_path / "stranger"
    run(tmp_path, "--venv", str(VENV))
    run(tmp_path, "--uninstall")
    (stranger / "config").mkdir(parents=True)
    run(tmp_path, "--uninstall", "--purge", "--prefix", str(stranger), code=3)
    assert (stranger / "config").is_dir()
    assert (home / "config/encryption.key").is_file()
    run(tmp_path, "--uninstall", "--purge", "--venv", str(VENV))
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert not home.exists()
    run(tmp_path, "--uninstall", "--purge", code=3)


def test_a_prefix_with_spaces(tmp_path: Path) -> None:
    run(tmp_path, "--venv", str(VENV), "--prefix", str(tmp_path / "my registry"))
    unit = (tmp_path / "etc/systemd/system/universal-registry.service").read_text()
    assert f'ExecStart="{tmp_path}/my registry/run_registry.sh"' in unit
    assert f'ReadWritePaths="{tmp_path}/my registry/config"' in unit
    if shutil.which("systemd-analyze"):
        copy = tmp_path / "universal-registry.service"
        copy.write_text(unit)
        words = ["systemd-analyze", "--man=no", "verify", str(copy)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    run(tmp_path, "--prefix", str(tmp_path / "my registry"), "--uninstall", "--purge")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--prefix",), 2, "--prefix needs a folder"),
        (("--purge",), 2, "--purge goes with --uninstall"),
        (("--wat",), 2, "unknown option --wat"),
        (("--venv", "/nonexistent"), 2, "there is no /nonexistent/bin/python"),
        (("--prefix", "/tmp/a$b"), 2, "has a quote, %, $, \\ or a line break"),
        (("--uninstall",), 3, "there is no registry in"),
    ],
)
def test_wrong_words_end_in_one_line(tmp_path: Path, words: tuple[str, ...], code: int, says: str) -> None:
    done = run(tmp_path, *words, code=code)
    assert says in done.stderr.splitlines()[-1]


def test_data_that_is_in_the_way_of_a_link_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "opt/universal-registry"
    home.mkdir(parents=True)
    (home / ".universal_registry.db").write_text("somebody's")
    done = run(tmp_path, "--venv", str(VENV), code=5)
    assert "is there already, of a registry that no service runs" in done.stderr
    assert (home / ".universal_registry.db").read_text() == "somebody's"
