"""The careful file access of the scan, and what it makes of hostile files, names and values."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from privileges import bound_by_modes

from universal_registry.scan import read_all
from universal_registry.scan.base import NOTES, VALUE_BYTES, Found, Machine, Skipped, Source, clean, shown, whole


def source_on(root: Path) -> Source:
    return Source(Machine(root, Path("/home/ada"), "box", {}, (), "linux"), "test")


def reasons(source: Source) -> list[str]:
    return [f"{skipped.path}: {skipped.reason}" for skipped in source.skipped]


def test_reads_a_plain_file_and_shows_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"caf\xe9 \xff\n")
    source = source_on(tmp_path)
    assert source.text("/file") == "caf\ufffd \ufffd\n"
    assert source.head("/file", 3) == b"caf"
    assert source.skipped == []


def test_what_is_absent_is_silent(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    source = source_on(tmp_path)
    assert source.text("/nothing") is None
    assert source.text("/plain/below") is None
    assert source.text("/dangling") is None
    assert source.names("/nothing") == []
    assert source.skipped == []


def test_a_fifo_neither_hangs_nor_hides(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    source = source_on(tmp_path)
    assert source.text("/fifo") is None
    assert source.head("/fifo", 10) is None
    assert reasons(source) == ["/fifo: not a plain file"] * 2


@pytest.mark.parametrize("kind", ["folder", "device"])
def test_only_plain_files_are_opened(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / "thing").mkdir()
        root, path = tmp_path, "/thing"
    else:
        root, path = Path("/"), "/dev/zero"
    source = source_on(root)
    assert source.text(path) is None
    assert reasons(source) == [f"{path}: not a plain file"]


def test_a_file_over_the_limit_is_skipped_whole(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 101)
    source = source_on(tmp_path)
    assert source.text("/big", 101) == "x" * 101
    assert source.text("/big", 100) is None
    assert reasons(source) == ["/big: larger than 100 bytes"]


@pytest.mark.parametrize("root_is_slash", [True, False])
def test_a_loop_of_links_is_one_line(tmp_path: Path, root_is_slash: bool) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    source = source_on(Path("/") if root_is_slash else tmp_path)
    path = f"{tmp_path}/a" if root_is_slash else "/a"
    assert source.text(path) is None
    assert len(source.skipped) == 1
    assert "link" in source.skipped[0].reason


def test_links_never_lead_out_of_another_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "outside").write_text("outside")
    (root / "etc" / "absolute").symlink_to(tmp_path / "outside")
    (root / "etc" / "climbing").symlink_to("../../outside")
    (root / "outside").write_text("inside")
    source = source_on(root)
    assert source.text("/etc/absolute") is None  # there is no such path below the root
    assert source.text("/etc/climbing") == "inside"  # `..` stops at the root


def test_a_folder_of_too_many_entries_is_skipped_whole(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"f{i}").touch()
    source = source_on(tmp_path)
    assert source.names("/", 6) == [f"f{i}" for i in range(6)]
    assert source.names("/", 5) == []
    assert reasons(source) == ["/: more than 5 entries in this folder"]


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0)
    script = """
import sys, pathlib
from universal_registry.scan.base import Machine, Source
source = Source(Machine(pathlib.Path(sys.argv[1]), pathlib.Path("/"), "box", {}, (), "linux"), "test")
print(source.text("/secret"), [(each.path, each.reason) for each in source.skipped])
"""
    command = [*bound_by_modes(), sys.executable, "-c", script, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "None [('/secret', 'permission denied')]"


@pytest.mark.parametrize("path", ["/a\0b", "/\ud800", "/" + "x" * 5000])
def test_impossible_paths_are_reported(tmp_path: Path, path: str) -> None:
    source = source_on(tmp_path)
    assert source.text(path) is None
    assert source.names(path) == []
    assert source.stat(path) is None
    assert source.link(path) is None
    assert source.skipped


def test_a_file_name_that_is_not_utf8_is_read_and_shown(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff", "wb") as file:
        file.write(b"content")
    source = source_on(tmp_path)
    (name,) = source.names("/")
    assert source.text(f"/{name}") == "content"
    (found,) = source.found("command", f"/{name}", None, {"path": f"/{name}"})
    assert found.name == "/\ufffd"
    assert found.spec == {"path": "/\ufffd"}


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\x1b[31m", "\u2028", "é" * 127])
def test_names_that_no_record_can_have_are_skipped_with_the_reason(tmp_path: Path, name: str) -> None:
    source = source_on(tmp_path)
    assert list(source.found("command", name, None, {})) == []
    assert source.skipped[0].reason.startswith("command with a name that no record can have")


@pytest.mark.parametrize(
    "name", ["g++", "@scope/pkg", "..", "[", "x; touch pwned", "HTTP_PROXY", "http_proxy", "🦀" * 63]
)
def test_names_of_real_systems_are_kept(tmp_path: Path, name: str) -> None:
    source = source_on(tmp_path)
    (found,) = source.found("package", name, "SystemPackage", {"version": "1", "location": None}, "a\n  title\t")
    assert found == Found("package", name, "SystemPackage", {"version": "1"}, {"scan": "test"}, "a title")
    assert source.skipped == []


def test_values_are_bounded_in_bytes(tmp_path: Path) -> None:
    source = source_on(tmp_path)
    assert len(list(source.found("function", "fits", None, {"body": "x" * VALUE_BYTES}))) == 1
    assert list(source.found("function", "ascii", None, {"body": "x" * (VALUE_BYTES + 1)})) == []
    assert list(source.found("function", "nested", None, {"body": [{"deep": "é" * VALUE_BYTES}]})) == []
    assert reasons(source) == [f"{name}: function holds a value of more than 64 KiB" for name in ("ascii", "nested")]


def test_cleaning_leaves_nothing_that_a_strict_loader_refuses() -> None:
    assert clean({"a\0": ["x\ud800", None, 1], "b": None, "c": {"d": None}}) == {"a\ufffd": ["x\ufffd", 1], "c": {}}
    assert shown("ok\U0001f980") == "ok\U0001f980"


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_0", " 1", "٣", "1" * 5000, "1.0", "9007199254740992"])
def test_only_plain_numbers_are_numbers(text: str) -> None:
    assert whole(text) is None


def test_whole_numbers_have_a_top() -> None:
    assert whole("65535", 65_535) == 65_535
    assert whole("65536", 65_535) is None


def test_logical_paths_hide_where_the_tree_is_mounted(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tmp_path / "home/ada", "box", {"PATH": "/bin:rel:/bin/::/usr/bin"}, (), "linux")
    assert machine.logical(tmp_path) == "/"
    assert machine.at_home(".ssh", "config") == "/home/ada/.ssh/config"
    assert machine.search_path() == ["/bin", "/usr/bin"]


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    source = source_on(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if stat.S_ISDIR(os.stat("/proc/self/fd").st_mode) else 0
    for _ in range(50):
        source.text("/file")
        source.text("/fifo")
        source.names("/")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_flood_of_notes_is_counted_not_kept(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hosts").write_text("nonsense\n" * (NOTES + 500))
    machine = Machine(tmp_path, Path("/home/ada"), "box", {}, (), "linux")
    items = [item for _, item in read_all(machine, ["hosts"])]
    assert len(items) == NOTES + 1
    assert items[-1] == Skipped("500 more like these were skipped", "hosts")
