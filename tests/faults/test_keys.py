"""The key file missing, swapped, unreadable or open to others: exit code 5, one clear line, the store untouched."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pressure import Daemon

from universal_registry.kernel.settings import Places
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.keyring import new_key

CONFLICT = 5
SECRET = {"kind": "secret", "namespace": "default", "name": "token", "spec": {"value": "hunter2-hunter2"}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A registry that holds a sealed secret, and whose daemon has ended."""
    daemon = Daemon(tmp_path / "home")
    try:
        daemon.start()
        with daemon.client() as client:
            client.request("POST", "/v1/-/apply", json=[SECRET])
        assert daemon.stop() == 0
    finally:
        daemon.process.kill()
        daemon.process.wait()
    return daemon.places.home


def missing(key: Path) -> None:
    key.unlink()


def swapped(key: Path) -> None:
    key.write_bytes(new_key(SystemWorld()) + b"\n")


def garbage(key: Path) -> None:
    key.write_bytes(b"\x00\xffnot a key at all\n")


def empty(key: Path) -> None:
    key.write_bytes(b"")


def open_to_others(key: Path) -> None:
    key.chmod(0o644)


def linked(key: Path) -> None:
    key.rename(key.with_suffix(".elsewhere"))
    key.symlink_to(key.with_suffix(".elsewhere"))


def folder_open_to_others(key: Path) -> None:
    key.parent.chmod(0o755)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing, "is missing"),
        (swapped, "the store was sealed with key"),
        (garbage, "does not hold a key"),
        (empty, "does not hold a key"),
        (open_to_others, "chmod 600"),
        (linked, "is a symbolic link"),
        (folder_open_to_others, "chmod 700"),
    ],
)
def test_it_refuses_in_one_line_and_works_again_once_the_key_is_back(
    home: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    places = Places(home)
    kept = tmp_path / "kept"
    shutil.copytree(places.key.parent, kept)
    spoil(places.key)
    stores, keys = digests(home, "*.db"), digests(places.key.parent, "*")
    daemon = Daemon(home)
    for _ in range(2):
        daemon.spawn()
        assert daemon.process.wait(60) == CONFLICT
    words = [line for line in daemon.last_words() if line.startswith("ureg: ")]
    assert len(set(words)) == 1
    assert said in words[0]
    assert "Traceback" not in "".join(daemon.last_words())
    assert "hunter2" not in words[0]
    assert (digests(home, "*.db"), digests(places.key.parent, "*")) == (stores, keys), "nothing was touched or made"

    shutil.rmtree(places.key.parent)
    shutil.copytree(kept, places.key.parent)
    try:
        daemon.start()
        with daemon.client() as client:
            record = client.request("GET", "/v1/default/secrets/token").json()
            assert record["spec"]["value"] == {"$secret": "kept"}
    finally:
        daemon.process.kill()
        daemon.process.wait()


def digests(folder: Path, pattern: str) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
