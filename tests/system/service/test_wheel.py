"""The wheel, built from what a container's builder gets, in an environment that knows nothing of this checkout."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from universal_registry.client.listen import Receiver
from universal_registry.kernel.world import SystemWorld

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
OFFLINE = re.compile(
    r"name resolution|NewConnectionError|Network is unreachable|No matching distribution|timed out", re.IGNORECASE
)
PATIENCE = 300

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the Containerfile builds it: out of nothing but what .containerignore lets through."""
    context, out = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("wheel")
    for line in (ROOT / ".containerignore").read_text().splitlines():
        if line.startswith("!"):
            source, copy = ROOT / line[1:], context / line[1:]
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "catalogue.json"))
            else:
                shutil.copy(source, copy)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=context, check=True,
        capture_output=True,
    )  # fmt: skip
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and the packages that are pinned, as pipx makes them."""
    made = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", made], check=True, capture_output=True)
    for words in (("--require-hashes", "-r", str(ROOT / "requirements.txt")), ("--no-deps", "--no-index", str(wheel))):
        done = subprocess.run(
            [made / "bin/python", "-m", "pip", "install", "-q", *words],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode != 0 and OFFLINE.search(done.stderr):
            pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    return made


def test_it_carries_the_fronts_and_the_service(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"deploy/{path.name}" for path in (ROOT / "deploy").iterdir()}
    wanted |= {
        str(path.relative_to(ROOT / "universal_registry"))
        for path in (ROOT / "universal_registry/shell").rglob("*")
        if path.is_file()
    }
    wanted |= {
        "shell/sh/registry_cli.sh",
        "shell/sh/by_daemon.sh",
        "registry/catalogue.json",
        "observe/monitoring/alerts.yml",
        "py.typed",
    }
    assert {f"universal_registry/{name}" for name in wanted} <= names
    assert not [name for name in names if name.startswith(("tests/", "config.py", "bench/"))]


def sh(environment: Path, home: Path, script: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    """Run lines where `ureg` is the installed one."""
    home.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        "PATH": f"{environment}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "REGISTRY_LISTEN": f"127.0.0.1:{port}",
    }
    return subprocess.run(
        [shell, "-e", "-c", script], cwd=home, env=environ, capture_output=True, text=True, timeout=100, check=False
    )


async def test_the_tour_of_the_readme_runs_as_it_is_written(environment: Path, tmp_path: Path) -> None:
    receiver = Receiver(world=SystemWorld())
    _, port = await receiver.start("127.0.0.1", 0)
    home = tmp_path / "me"
    try:
        for block in TOUR:
            script = block.replace("./ureg", "ureg").replace(":9000", f":{port}")
            done = await asyncio.to_thread(sh, environment, home, script)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        await asyncio.to_thread(sh, environment, home, "ureg down")
        await receiver.stop()
    assert "alias/default/gs" in receiver.latest()
    assert (home / ".local/share/universal-registry/config/encryption.key").is_file()


def test_the_functions_for_shells_come_with_it(environment: Path, tmp_path: Path) -> None:
    home = tmp_path / "me"
    script = 'ureg init >/dev/null; ureg shell sh >rc; . ./rc; registry_cli set alias gs "command=git status"'
    done = sh(environment, home, f"{script}; registry_cli get alias gs")
    assert "git status" in done.stdout, done.stderr
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    script = "ureg shell zsh >rc; source ./rc; whence -w register_entity; query_entities_by_classification ZshAlias"
    done = sh(environment, home, script, "zsh")
    assert done.stdout.startswith("register_entity: function\n"), done.stderr
    assert "git status" in done.stdout, done.stderr


def test_its_service_runs_the_python_that_it_is_installed_for(environment: Path, tmp_path: Path) -> None:
    home = tmp_path / "me"
    done = sh(
        environment, home, "ureg service install --user; ureg service status || echo $?; ureg service uninstall --user"
    )
    assert done.returncode == 0, done.stderr
    unit = home / ".config/systemd/user/universal-registry.service"
    assert f"wrote {unit}" in done.stdout
    assert not unit.exists()
    assert (home / ".local/share/universal-registry/.universal_registry.db").stat().st_size > 0
    done = sh(environment, home, "ureg service install --user; cat .config/systemd/user/universal-registry.service")
    assert f'ExecStart="{environment}/bin/python" "-P" "-m" "universal_registry" "serve"' in done.stdout
