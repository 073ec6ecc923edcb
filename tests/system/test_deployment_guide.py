"""Every command of the deployment guide that the registry's first users have, as it is written there, in a fresh clone.

Its lines are the ones that people have in their scripts and runbooks, so they stand here word for word. What they say
to `sudo`, `systemctl`, `journalctl` and `launchctl` is recorded and, where that can be, done. The guide's destructive
lines of troubleshooting must be needless: `ureg doctor` says what to do instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import free_port

ROOT = Path(__file__).resolve().parents[2]

MANUAL = "chmod +x run_registry.sh\n./run_registry.sh &\n"
CLI = """
./cli/registry_cli.sh init

./cli/registry_cli.sh status

./cli/registry_cli.sh unidirectional --source myservice --target remote.service

./cli/registry_cli.sh bidirectional --source service1 --target service2

./cli/registry_cli.sh multicast --source hub --targets "s1,s2,s3"

./cli/registry_cli.sh broadcast --source publisher --exclude "internal"
"""
ZSH = """
# Source the integration
source universal_registry_integration.zsh

# Initialize with propagation
universal_registry_with_propagation_init

# Register entity
register_entity "myapp" "AppService" '{"type":"service","version":"1.0"}'

# Query entities
query_entities_by_classification "AppService"

# Start propagation
registry_propagation_unidirectional myapp "remote.service" "$payload"
"""
PYTHON = """
from config import get_encryption_manager, get_retry_manager

# Encrypt payload
em = get_encryption_manager()
encrypted = em.encrypt_dict({"data": "value"})

# Retry webhook delivery
rm = get_retry_manager()
await rm.execute_with_retry(delivery_func, webhook_id, payload)
"""
ENCRYPTION_CONFIG = {
    "enabled": True,
    "algorithm": "Fernet",
    "key_rotation_interval_days": 90,
    "encrypt_payloads": True,
}
RETRY_CONFIG = {
    "enabled": True,
    "max_retries": 5,
    "base_delay_seconds": 1,
    "max_delay_seconds": 300,
    "backoff_multiplier": 2.0,
    "jitter_enabled": True,
    "circuit_breaker_enabled": True,
    "circuit_breaker_threshold": 5,
    "circuit_breaker_timeout_seconds": 60,
}
POSTGRESQL = """
export REGISTRY_DB_HOST=dbserver
export REGISTRY_DB_NAME=universal_registry
export REGISTRY_DB_USER=registry
export REGISTRY_DB_PASSWORD=***
"""
METRICS = {
    "health.db", "health.queue_depth", "health.webhooks_pending", "propagation.executed", "webhook.delivered",
    "webhook.retry", "webhook.failed", "stream.messages",
}  # fmt: skip
HEALTH = """
# Check DB connectivity
curl http://localhost:8080/health/db

# Get queue depth
sqlite3 .registry_propagation.db "SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry');"

# Check webhook queue
sqlite3 .registry_propagation.db "SELECT COUNT(*) FROM webhook_queue WHERE status='pending';"
"""
SYNTAX = "bash -n run_registry.sh"
BREAKER = """python3 -c "from config import get_retry_manager; get_retry_manager().circuit_open = False" """
SUPPORT = """
sqlite3 .universal_registry.db "SELECT 1;"
./cli/registry_cli.sh status
cat config.py | grep -A5 "ENCRYPTION_CONFIG\\|RETRY_CONFIG"
"""
NEEDS = {"zsh": "zsh", "curl": "curl", "sqlite3": "sqlite3"}


class Clone:
    """A fresh clone, whose folder is its registry's home. `run`: lines for a shell, as somebody would paste them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")},
            "HOME": str(folder.parent),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "REGISTRY_PYTHON": sys.executable,
            "REGISTRY_LISTEN": f"127.0.0.1:{self.port}",
        }

    def run(self, lines: str, *shell: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = shell or ("bash", "-ec")
        lines = lines.replace("localhost:8080", f"localhost:{self.port}")
        said = self.folder.parent / "said"
        with said.open("w") as file:  # no pipe: what goes on in the background would keep it open
            done = subprocess.run(
                [*command, lines], cwd=self.folder, env=self.environ, stdout=file, stderr=subprocess.PIPE, text=True,
                timeout=60, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        done.stdout = said.read_text()
        assert done.returncode == code, f"{lines}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True, capture_output=True, timeout=60)
    made = Clone(folder)
    yield made
    made.run("./ureg down")


@pytest.fixture
def running(clone: Clone) -> Clone:
    clone.run("./ureg init; ./ureg up")
    return clone


def has(*programs: str) -> pytest.MarkDecorator:
    lacking = [each for each in programs if shutil.which(each) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"not installed here: {', '.join(lacking)}")


pytestmark = [pytest.mark.slow, has("git")]


def test_by_hand(clone: Clone) -> None:
    clone.run("exec 2>/dev/null\n" + MANUAL + "until [ -s run/address ]; do read -r _ </proc/uptime; done\n")
    assert "store" in clone.run("./cli/registry_cli.sh status").stdout
    clone.run("kill -TERM $(cat run/ureg.pid)")


def test_the_command_line_block(clone: Clone) -> None:
    clone.run(CLI)
    modes = {each["mode"] for each in json.loads(clone.run("./ureg session ls -o json").stdout)}
    assert modes == {"unidirectional", "bidirectional", "multicast", "broadcast"}
    clone.run("./cli/registry_cli.sh init")  # and again


@has("zsh")
def test_the_zsh_block(clone: Clone) -> None:
    said = clone.run(ZSH, "zsh", "-f", "-e", "-c")
    row = next(line for line in said.stdout.splitlines() if line.startswith("myapp\t")).split("\t")
    assert row[1] == "AppService"
    assert json.loads(row[5]) == {"type": "service", "version": "1.0"}
    found = clone.run("./ureg session ls -o json").stdout
    assert json.loads(found)[0]["mode"] == "unidirectional"


def test_the_python_block(clone: Clone) -> None:
    body = "\n".join("    " + line for line in PYTHON.strip().splitlines() if not line.startswith("from config"))
    program = f"""
import asyncio
from config import get_encryption_manager, get_retry_manager
webhook_id, payload, tries = "w1", {{"n": 1}}, []
async def delivery_func(*words):
    tries.append(words)
async def main():
{body}
    assert em.decrypt_dict(encrypted) == {{"data": "value"}}
asyncio.run(main())
print(tries)
"""
    assert clone.run(program, "python3", "-c").stdout == "[('w1', {'n': 1})]\n"


def test_the_dicts_of_config_py(clone: Clone) -> None:
    read = "import config, json; print(json.dumps([config.ENCRYPTION_CONFIG, config.RETRY_CONFIG]))"
    encryption, retry = json.loads(clone.run(read, "python3", "-c").stdout)
    assert list(encryption.items())[: len(ENCRYPTION_CONFIG)] == list(ENCRYPTION_CONFIG.items())
    assert list(retry.items())[: len(RETRY_CONFIG)] == list(RETRY_CONFIG.items())


def test_the_postgresql_block_is_obeyed_or_refused_and_never_ignored(clone: Clone) -> None:
    """That it works with a server is in tests/system/daemon/test_daemon_postgres.py; there is none called dbserver."""
    said = clone.run(POSTGRESQL + "./ureg init", code=1).stderr
    assert "dbserver" in said
    assert "***" not in said
    assert not (clone.folder / ".universal_registry.db").exists()


@has("curl", "sqlite3")
def test_the_monitoring_block(running: Clone) -> None:
    running.run("./ureg set service shop port=1; ./ureg unidirectional --source shop --target nowhere")
    health, _, counts = running.run(HEALTH).stdout.rpartition("}")
    depth, pending = counts.split()
    assert json.loads(health + "}")["status"] == "ok"
    said = f"grep -qx health.queue_depth={depth} metrics/registry.metrics"
    metrics = running.run(f"until {said}; do read -r _ </proc/uptime; done; cat metrics/registry.metrics").stdout
    figures = dict(line.split("=") for line in metrics.splitlines())
    assert figures.keys() >= METRICS
    assert (depth, pending) == ("1", figures["health.webhooks_pending"]), "what waits for a name is counted"


@has("sqlite3")
def test_the_lines_for_support_and_trouble(running: Clone) -> None:
    assert "ENCRYPTION_CONFIG" in running.run(SYNTAX + SUPPORT).stdout
    said = running.run(BREAKER)
    assert "ureg target breaker" in said.stdout + said.stderr


def test_doctor_makes_the_lines_that_destroy_needless(running: Clone) -> None:
    """`rm *.db-wal` and `rm config/encryption.key`: one would lose acknowledged writes, the other all secrets."""
    running.run("./ureg set env_var TOKEN secret_value=x 2>/dev/null")
    found = json.loads(running.run("./ureg doctor -o json", code=10).stdout)
    assert not [each for each in found if each["state"] == "fail"]
    running.run("./ureg down")
    key = running.folder / "config" / "encryption.key"
    aside = key.rename(running.folder / "aside.key")
    said = running.run("./run_registry.sh", code=5).stderr
    assert "key" in said
    assert not key.exists(), "no new key is made over what is sealed"
    aside.rename(key)
    running.run("./ureg up; ./ureg get env_var TOKEN")
