"""Files that are there whole or not at all, also where the file system has no hard links."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from universal_registry.storage import durable
from universal_registry.storage.durable import drop_empty, new_file, replaced_file


@pytest.fixture(params=["links", "no links"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a file system like FAT answers EPERM to link()."""

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(durable.os, "link", refused)
    return tmp_path


def test_a_new_file_is_there_after_the_block_with_its_mode(folder: Path) -> None:
    with new_file(folder / "a", "1", mode=0o640) as file:
        file.write(b"text")
        assert not (folder / "a").exists()
    assert (folder / "a").read_bytes() == b"text"
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o640
    assert os.listdir(folder) == ["a"]


def test_a_new_file_replaces_nothing(folder: Path) -> None:
    (folder / "a").write_bytes(b"before")
    with pytest.raises(FileExistsError), new_file(folder / "a", "1") as file:
        file.write(b"text")
    assert (folder / "a").read_bytes() == b"before"
    assert os.listdir(folder) == ["a"]


def test_the_second_of_two_makers_is_told(folder: Path) -> None:
    late = new_file(folder / "a", "1")
    late.__enter__().write(b"late")
    with new_file(folder / "a", "2") as first:
        first.write(b"first")
    with pytest.raises(FileExistsError):
        late.__exit__(None, None, None)
    assert (folder / "a").read_bytes() == b"first"


@pytest.mark.parametrize("make", [new_file, replaced_file])
def test_what_the_block_raises_leaves_nothing(folder: Path, make: Any) -> None:
    def fail() -> None:
        with make(folder / "a", "1") as file:
            file.write(b"text")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.listdir(folder) == []


def test_a_replaced_file_is_the_old_one_until_the_block_ends(folder: Path) -> None:
    (folder / "a").write_bytes(b"before")
    with replaced_file(folder / "a", "1") as file:
        file.write(b"after")
        assert (folder / "a").read_bytes() == b"before"
    assert (folder / "a").read_bytes() == b"after"
    assert os.listdir(folder) == ["a"]


def test_another_refusal_to_link_is_no_reason_to_go_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "link", full)
    with pytest.raises(OSError, match="No space"), new_file(tmp_path / "a", "1") as file:
        file.write(b"text")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a kill needs a process")
def test_a_kill_at_any_call_leaves_no_empty_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at the first, second, ... call to the system: the file is not there, or it is whole."""
    for survived in range(40):
        (folder / "a").unlink(missing_ok=True)
        if (pid := os.fork()) == 0:
            _killed_after(survived, monkeypatch)
            with new_file(folder / "a", f"{survived}") as file:
                file.write(b"text")
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert not (folder / "a").exists() or (folder / "a").read_bytes() == b"text"
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert 3 < survived < 39
    assert (folder / "a").read_bytes() == b"text"


def _killed_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [calls]

    def counted(real: Any) -> Any:
        def call(*words: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return real(*words, **more)

        return call

    for name in ("open", "link", "rename", "replace", "fsync", "close", "unlink"):
        monkeypatch.setattr(durable.os, name, counted(getattr(os, name)))


def test_an_empty_file_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").touch()
    for name in ("empty", "full", "link", "none"):
        drop_empty(tmp_path / name)
    drop_empty(tmp_path / "no folder" / "a")
    assert sorted(os.listdir(tmp_path)) == ["full", "link", "target"]
