"""A rotation of keys, killed (-9) at every point at which it changes something, on both engines.

After each kill everything opens with the files as they are, and whoever opens it next brings the rotation to its end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pgserver
import pytest
from child_rotation import AT_ONCE, to_the_end

from universal_registry.app import App, init, open_app
from universal_registry.environment import load_settings
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry import key_control
from universal_registry.registry.check import check_registry
from universal_registry.registry.key_check import check_seals
from universal_registry.registry.once import Once
from universal_registry.registry.service import Actor

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child_rotation.py")
OPERATOR = Actor("uid:1000", admin=True)
LEAST_POINTS = 40
KILLED = -9


class Trial:
    """A prepared home, and copies of it to rotate in."""

    def __init__(self, folder: Path, server: pgserver.Server | None) -> None:
        self.folder = folder
        self.server = server
        self.prepared = folder / "prepared"

    def environ(self, home: Path) -> dict[str, str]:
        database = self.server.environment(home.name) if self.server else {}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REGISTRY_HOME": str(home), **database}

    def settings(self, home: Path) -> Settings:
        return load_settings(environ=self.environ(home))

    def prepare(self) -> None:
        if self.server:
            self.server.database(self.prepared.name)
        init(self.settings(self.prepared))
        asyncio.run(fill(self.settings(self.prepared)))

    def copy(self, name: str) -> Path:
        home = self.folder / name
        shutil.copytree(self.prepared, home)
        if self.server:
            self.server.database(name, template=self.prepared.name)
        return home

    def remove(self, home: Path) -> None:
        shutil.rmtree(home)
        if self.server:
            self.server.drop_database(home.name)

    def rotate(self, home: Path, fatal: int) -> tuple[int, list[str]]:
        """The child's exit code, and the points that it came by."""
        done = subprocess.run(
            [sys.executable, str(CHILD), str(fatal)],
            env=self.environ(home),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (0, KILLED), done.stderr
        return done.returncode, done.stdout.splitlines()


async def fill(settings: Settings) -> None:
    app = await open_app(settings, world=SystemWorld())
    try:
        for number in range(5):
            document = {"kind": "secret", "name": f"s{number}", "spec": {"value": f"value {number}"}}
            once = Once(key=f"k{number}", fingerprint="f", render=lambda _: b"answer")
            await app.service.put(document, actor=OPERATOR, once=once)
        key = Key("secret", "default", "s1")
        await app.service.emit(key, {"an": "event"}, audience=["system/t"], session="s", actor=OPERATOR)
    finally:
        await app.close()


async def hashes(settings: Settings) -> list[bytes]:
    app = await open_app(settings, world=SystemWorld(), read_only=True)
    try:
        return [line.hash for line in await app.service.log.changes(0, 1000)]
    finally:
        await app.close()


async def all_opens(app: App) -> None:
    seals = await check_seals(app.service, app.sealer, app.stores.keys)
    assert seals.wrong == 0, seals.named
    assert sum(seals.opened.values()) >= 17
    await check_registry(app.service.records, app.service.log, app.service.event_commitment)
    for number in range(5):
        record = await app.service.get(Key("secret", "default", f"s{number}"))
        assert app.service.reveal(record) == {"value": f"value {number}"}


async def judge_as_it_is(settings: Settings) -> None:
    """As a command that only reads, beside the dead daemon."""
    app = await open_app(settings, world=SystemWorld(), read_only=True)
    try:
        await all_opens(app)
    finally:
        await app.close()


async def go_on(settings: Settings) -> None:
    """As the next daemon does. It knows nothing of the one before but what that left behind."""
    app = await open_app(settings, world=SystemWorld())
    try:
        await to_the_end(app)
    finally:
        await app.close()


async def judge_in_the_end(settings: Settings) -> None:
    app = await open_app(settings, world=SystemWorld())
    try:
        await all_opens(app)
        found = await app.keys.listing(count=True)
        assert found["rotation"] is None
        sealing, *others = found["keys"]
        assert sealing["state"] == "primary"
        assert not [each for each in others if each["uses"]]
        assert set(app.sealer.keyring.keys) == {sealing["kid"]}, "the old ones were retired"
        assert settings.key_file.read_bytes().strip() == app.sealer.keyring.key(sealing["kid"])
        left = [path.name for path in settings.key_file.parent.iterdir()]
        assert sorted(left) == ["admin.token", "encryption.key", "keys"], "nothing half-made is left"
    finally:
        await app.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_killed_at_every_point_nothing_is_lost(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = request.getfixturevalue("postgres") if engine == "postgres" else None
    trial = Trial(tmp_path, server)
    trial.prepare()
    for name, value in AT_ONCE.items():
        monkeypatch.setattr(key_control, name, value)
    before = asyncio.run(hashes(trial.settings(trial.prepared)))
    code, points = trial.rotate(trial.copy("whole"), 0)
    assert code == 0
    assert len(points) >= LEAST_POINTS, points
    for fatal in range(1, len(points) + 1):
        home = trial.copy(f"killed_{fatal}")
        settings = trial.settings(home)
        code, passed = trial.rotate(home, fatal)
        where = passed[-1]
        assert code == KILLED, where
        with named(where):
            asyncio.run(judge_as_it_is(settings))
            asyncio.run(go_on(settings))
            asyncio.run(judge_in_the_end(settings))
            assert asyncio.run(hashes(settings)) == before
        trial.remove(home)


class named:  # noqa: N801 - used as the verb that it is
    """Says at which point it was killed when something does not hold."""

    def __init__(self, point: str) -> None:
        self.point = point

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"killed at {self.point}")


def test_the_child_is_killed_where_it_is_told(tmp_path: Path) -> None:
    trial = Trial(tmp_path, None)
    trial.prepare()
    code, points = trial.rotate(trial.copy("home"), 3)
    assert (code, len(points)) == (KILLED, 3)
