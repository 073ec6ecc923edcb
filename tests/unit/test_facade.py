"""The managers of config.py: the same objects from the checkout and from the package."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from universal_registry.facade import EncryptionManager, RetryManager
from universal_registry.kernel.errors import CircuitOpen, Corrupt, Invalid, KeyMismatch
from universal_registry.kernel.settings import RetrySettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.keyring import new_key
from universal_registry.storage.keyfile import key_files

ROOT = Path(__file__).resolve().parents[2]


class Clock(SystemWorld):
    """A clock that tests move, and chance that they choose."""

    def __init__(self, luck: float = 0.0) -> None:
        self.moment = datetime(2026, 3, 1, tzinfo=UTC)
        self.luck = luck

    def now(self) -> datetime:
        return self.moment

    def chance(self) -> float:
        return self.luck


class Retries:
    """A manager on a clock of its own, and the waits that it made."""

    def __init__(self, luck: float = 0.0, **settings: Any) -> None:
        self.world = Clock(luck)
        self.waits: list[float] = []
        self.manager = RetryManager(RetrySettings(**settings), self.world, sleep=self._sleep)
        self.calls = 0

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.world.moment += timedelta(seconds=seconds)

    def pass_by(self, seconds: float) -> None:
        self.world.moment += timedelta(seconds=seconds)

    async def fails(self, *_: object) -> None:
        self.calls += 1
        raise ConnectionError(f"failure {self.calls}")

    async def succeeds(self, *values: object) -> tuple[object, ...]:
        self.calls += 1
        return values

    async def fail(self, times: int) -> None:
        for _ in range(times):
            with pytest.raises(ConnectionError):
                await self.manager.execute_with_retry(self.fails)


# --- encryption -----------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def em(settings: Settings) -> EncryptionManager:
    return EncryptionManager(settings, SystemWorld())


def test_a_token_is_plain_fernet_under_the_files_key(em: EncryptionManager, settings: Settings) -> None:
    token = em.encrypt_dict({"data": "value"})
    fernet = Fernet(settings.key_file.read_bytes().strip())
    assert fernet.decrypt(token) == b'{"data":"value"}'
    assert em.decrypt_dict(token) == {"data": "value"}
    assert em.decrypt_dict(fernet.encrypt(b'{"from": ["outside", 1]}')) == {"from": ["outside", 1]}


@pytest.mark.parametrize("text", ["", "hunter2", "\u00e4\U0001f600\n", "x" * 100_000])
def test_text_and_bytes_come_back(em: EncryptionManager, text: str) -> None:
    assert em.decrypt(em.encrypt(text)) == text
    assert em.decrypt(em.encrypt(text.encode())) == text
    assert em.decrypt(em.encrypt(text).encode()) == text


@pytest.mark.parametrize("token", ["", "x", "gAAAA", b"\xff\xfe", None, 5])
def test_what_is_no_token_is_one_error(em: EncryptionManager, token: Any) -> None:
    for decrypt in (em.decrypt, em.decrypt_dict):
        with pytest.raises(Corrupt):
            decrypt(token)


def test_a_token_that_was_changed_or_holds_something_else_is_refused(em: EncryptionManager) -> None:
    token = em.encrypt_dict({"a": 1})
    with pytest.raises(Corrupt, match="does not open"):
        em.decrypt_dict(token[:-6] + ("AAAA==" if not token.endswith("AAAA==") else "BBBB=="))
    for other in ("text", "[1]", "5"):
        with pytest.raises(Corrupt, match="holds no dict"):
            em.decrypt_dict(em.encrypt(other))
    with pytest.raises(Corrupt, match="no text"):
        em.decrypt(em.encrypt(b"\xff"))


@pytest.mark.parametrize("data", [["a"], "text", None, {"a": object()}, {1: 2}])
def test_what_is_no_dict_of_json_is_refused(em: EncryptionManager, data: Any) -> None:
    with pytest.raises(Invalid):
        em.encrypt_dict(data)


def test_older_tokens_open_after_a_rotation_and_new_ones_bear_the_new_key(
    em: EncryptionManager, settings: Settings
) -> None:
    old = em.encrypt("old")
    key = new_key(SystemWorld())
    key_files(settings, SystemWorld()).make_primary(key)
    assert em.decrypt(old) == "old"
    assert Fernet(key).decrypt(em.encrypt("new")) == b"new"


def test_no_key_is_made_over_a_store(settings: Settings) -> None:
    from universal_registry.app import init

    init(settings)
    settings.key_file.unlink()
    with pytest.raises(KeyMismatch):
        EncryptionManager(settings, SystemWorld()).encrypt("x")
    assert not settings.key_file.exists()


# --- retries --------------------------------------------------------------------------------------------------------


async def test_the_literal_config_makes_six_attempts_and_five_waits() -> None:
    retries = Retries()
    with pytest.raises(ConnectionError, match="failure 6"):
        await retries.manager.execute_with_retry(retries.fails, "webhook", {"a": 1})
    assert retries.waits == [1, 2, 4, 8, 16]
    with pytest.raises(CircuitOpen):
        await retries.manager.execute_with_retry(retries.fails)
    assert retries.calls == 6, "the breaker lets nothing through"


@pytest.mark.parametrize(
    ("settings", "luck", "waits"),
    [
        ({}, 0.999999, [1.1, 2.2, 4.4, 8.8, 17.6]),
        ({"jitter_enabled": False}, 0.9, [1, 2, 4, 8, 16]),
        ({"jitter_factor": 0.5}, 0.999999, [1.5, 3, 6, 12, 24]),
        ({"base_delay_seconds": 0.5, "backoff_multiplier": 3.0, "max_retries": 3}, 0.0, [0.5, 1.5, 4.5]),
        ({"max_delay_seconds": 3.0, "jitter_enabled": True}, 0.999999, [1.1, 2.2, 3, 3, 3]),
        ({"max_retries": 0}, 0.0, []),
        ({"enabled": False}, 0.0, []),
    ],
)
async def test_each_key_of_the_config_has_its_effect(settings: dict[str, Any], luck: float, waits: list[float]) -> None:
    retries = Retries(luck, circuit_breaker_enabled=False, **settings)
    await retries.fail(1)
    assert retries.waits == pytest.approx(waits, abs=1e-4)
    assert retries.calls == len(waits) + 1


async def test_the_result_is_returned_and_arguments_are_handed_on() -> None:
    retries = Retries()
    assert await retries.manager.execute_with_retry(retries.succeeds, 1, "b") == (1, "b")
    assert await retries.manager.execute_with_retry(functools.partial(retries.succeeds, 1), 2) == (1, 2)
    assert await retries.manager.execute_with_retry(lambda a, b=0: a + b, 1, b=2) == 3
    assert await retries.manager.execute_with_retry(lambda: retries.succeeds(5)) == (5,)

    class Delivery:
        async def __call__(self, value: int) -> int:
            return value

    assert await retries.manager.execute_with_retry(Delivery(), 7) == 7


async def test_a_function_that_blocks_does_not_block_the_loop() -> None:
    release, loop = threading.Event(), asyncio.get_running_loop()

    def blocks() -> str:
        assert threading.current_thread() is not threading.main_thread()
        assert release.wait(30)
        return "done"

    loop.call_soon(lambda: loop.call_soon(release.set))  # runs only if the loop does
    assert await Retries().manager.execute_with_retry(blocks) == "done"


async def test_an_attempt_has_its_deadline() -> None:
    retries = Retries(timeout_seconds=0.01, max_retries=1)

    async def hangs() -> None:
        retries.calls += 1
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await retries.manager.execute_with_retry(hangs)
    assert retries.calls == 2


async def test_cancelling_is_no_failure() -> None:
    retries = Retries()

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await retries.manager.execute_with_retry(cancelled)
    assert retries.manager.failure_count == 0
    assert retries.waits == []


async def test_the_breaker_opens_for_its_time_and_lets_one_attempt_through() -> None:
    retries = Retries(max_retries=0, circuit_breaker_threshold=3, circuit_breaker_timeout_seconds=20)
    await retries.fail(2)
    assert not retries.manager.is_circuit_open()
    await retries.fail(1)
    assert retries.manager.circuit_open
    assert retries.manager.failure_count == 3
    retries.pass_by(19.999)
    with pytest.raises(CircuitOpen, match="after 3 failures in a row"):
        await retries.manager.execute_with_retry(retries.succeeds)
    retries.pass_by(0.001)
    assert not retries.manager.is_circuit_open()
    let_through = asyncio.Event()

    async def probe() -> None:
        with pytest.raises(CircuitOpen):  # a second one, while it is under way
            await retries.manager.execute_with_retry(retries.succeeds)
        let_through.set()

    await retries.manager.execute_with_retry(probe)
    assert let_through.is_set()
    assert retries.manager.failure_count == 0
    assert await retries.manager.execute_with_retry(retries.succeeds) == ()


async def test_a_failed_probe_opens_it_for_longer() -> None:
    retries = Retries(max_retries=0, circuit_breaker_threshold=1, circuit_breaker_timeout_seconds=20)
    await retries.fail(1)
    retries.pass_by(20)
    await retries.fail(1)
    retries.pass_by(39)
    assert retries.manager.is_circuit_open()
    retries.pass_by(1)
    assert not retries.manager.is_circuit_open()


async def test_without_the_breaker_nothing_opens() -> None:
    retries = Retries(max_retries=0, circuit_breaker_enabled=False)
    await retries.fail(20)
    assert not retries.manager.is_circuit_open()


async def test_the_breaker_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    retries = Retries(max_retries=0)
    for _ in range(5):
        retries.manager.record_failure()
    assert retries.manager.is_circuit_open()
    retries.manager.circuit_open = False
    assert capsys.readouterr().out.count("\n") == 1
    assert not retries.manager.circuit_open
    assert retries.manager.failure_count == 0
    await retries.manager.execute_with_retry(retries.succeeds)
    retries.manager.circuit_open = True
    with pytest.raises(CircuitOpen):
        await retries.manager.execute_with_retry(retries.succeeds)
    retries.manager.record_success()
    assert not retries.manager.circuit_open


def test_the_pure_questions() -> None:
    manager = Retries().manager
    assert [manager.should_retry(attempt) for attempt in (0, 4, 5, 6)] == [True, True, False, False]
    assert [manager.get_backoff_delay(attempt) for attempt in (0, 1, 4, 8, 10_000)] == [1, 2, 16, 256, 300]
    assert not RetryManager(RetrySettings(enabled=False), Clock()).should_retry(0)


# --- from a checkout ------------------------------------------------------------------------------------------------

SEED = """
from config import get_encryption_manager, get_retry_manager

# Encrypt payload
em = get_encryption_manager()
encrypted = em.encrypt_dict({"data": "value"})

# Retry webhook delivery
rm = get_retry_manager()
await rm.execute_with_retry(delivery_func, webhook_id, payload)
"""
AROUND = """
import asyncio, sys
async def delivery_func(webhook_id, payload):
    print(webhook_id, payload)
webhook_id, payload = "w1", {"a": 1}
async def main():
%s
    print(em.decrypt_dict(encrypted))
asyncio.run(main())
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout, with what `config.py` needs of one."""
    folder = tmp_path / "check out"
    folder.mkdir()
    shutil.copy(ROOT / "config.py", folder)
    (folder / "universal_registry").symlink_to(ROOT / "universal_registry")
    return folder


def python(checkout: Path, code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "REGISTRY_HOME": str(checkout)}
    return subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=checkout, env=environ, capture_output=True, text=True, check=False
    )


def test_the_documented_block_runs_as_it_is_written(checkout: Path) -> None:
    block = "\n".join(f"    {line}" for line in SEED.splitlines())
    done = python(checkout, AROUND % block)
    assert done.stderr == ""
    assert done.stdout == "w1 {'a': 1}\n{'data': 'value'}\n"
    assert (checkout / "config" / "encryption.key").stat().st_mode & 0o777 == 0o600


def test_config_beside_its_run_time_folder_is_still_the_module(checkout: Path) -> None:
    (checkout / "config").mkdir(mode=0o700)
    code = "import config; print(config.RETRY_CONFIG['max_retries'], config.get_retry_manager().failure_count)"
    assert python(checkout, code).stdout == "5 0\n"


def test_every_import_gives_the_same_objects(checkout: Path) -> None:
    code = (
        "import config\nfrom config import get_encryption_manager, get_retry_manager, RETRY_CONFIG\n"
        "from universal_registry import facade\n"
        "assert get_retry_manager() is config.get_retry_manager() is facade.get_retry_manager()\n"
        "assert get_encryption_manager() is facade.get_encryption_manager()\n"
        "assert facade.RETRY_CONFIG.items() >= RETRY_CONFIG.items()\n"
        "assert facade.ENCRYPTION_CONFIG.items() >= config.ENCRYPTION_CONFIG.items()\n"
    )
    done = python(checkout, code)
    assert done.returncode == 0, done.stderr


def test_the_documented_reset_says_what_it_did(checkout: Path) -> None:
    done = python(checkout, "from config import get_retry_manager; get_retry_manager().circuit_open = False")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert "ureg target breaker NAME --reset" in done.stdout


def test_the_managers_have_the_values_of_the_file(checkout: Path) -> None:
    path = checkout / "config.py"
    path.write_text(path.read_text().replace('"max_retries": 5', '"max_retries": 2'))
    done = python(checkout, "from config import get_retry_manager; print(get_retry_manager().settings.max_retries)")
    assert done.stdout == "2\n"


def test_the_wrong_python_ends_in_one_line_that_names_the_right_one(checkout: Path) -> None:
    code = "from config import get_encryption_manager"
    done = python(checkout, code, "-S")  # -S: no site-packages, as a system's Python has none of ours
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "lacks apsw, cryptography, msgspec, orjson; run ./ureg once" in done.stderr
    right = checkout / ".venv" / "bin" / "python"
    right.parent.mkdir(parents=True)
    right.touch()
    assert f"use {right}" in python(checkout, code, "-S").stderr
    assert python(checkout, "from config import RETRY_CONFIG", "-S").returncode == 0
    unknown = python(checkout, "from config import nonsense", "-S")
    assert "ImportError" in unknown.stderr


def test_the_literals_begin_with_the_documented_keys() -> None:
    scope: dict[str, Any] = {}
    exec((ROOT / "config.py").read_text(), scope)
    assert list(scope["ENCRYPTION_CONFIG"].items())[:4] == [
        ("enabled", True),
        ("algorithm", "Fernet"),
        ("key_rotation_interval_days", 90),
        ("encrypt_payloads", True),
    ]
    assert list(scope["RETRY_CONFIG"].items())[:9] == [
        ("enabled", True),
        ("max_retries", 5),
        ("base_delay_seconds", 1),
        ("max_delay_seconds", 300),
        ("backoff_multiplier", 2.0),
        ("jitter_enabled", True),
        ("circuit_breaker_enabled", True),
        ("circuit_breaker_threshold", 5),
        ("circuit_breaker_timeout_seconds", 60),
    ]


def test_the_file_says_the_defaults(tmp_path: Path) -> None:
    from universal_registry.environment import load

    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "config.py", home)
    found = load({"home": home}, {})
    assert found.settings == Settings(home=home)
    assert found.warnings == ()
    assert found.origins["retry.jitter_factor"].startswith("config.py:")
