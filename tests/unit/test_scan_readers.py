"""All readers together: words, uniqueness, stability, the catalogue, and that they only read."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import universal_registry.scan
from universal_registry.kernel.errors import UsageError
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.validate import validate_spec
from universal_registry.scan import GROUPS, READERS, Found, Machine, Skipped, read_all, select
from universal_registry.scan.base import PERSONAL

MODULES = sorted(Path(universal_registry.scan.__file__).parent.glob("*.py"))


def put(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A small tree with something for most readers, and some things twice."""
    root = tmp_path / "root"
    put(root, "/etc/passwd", "ada:x:1000:1000::/home/ada:/bin/zsh\n")
    put(root, "/etc/group", "ada:x:1000:\n")
    put(root, "/etc/hosts", "127.0.0.1 localhost\n")
    put(root, "/etc/services", "ssh 22/tcp\n")
    put(root, "/usr/lib/systemd/system/ssh.service", "[Service]\nExecStart=/usr/sbin/sshd\n")
    put(root, "/var/lib/dpkg/status", "Package: g++\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n")
    put(root, "/usr/lib/python3/dist-packages/x-1.dist-info/METADATA", "Name: x\nVersion: 1\n")
    put(root, "/usr/lib/node_modules/@s/x/package.json", '{"version": "1"}')
    put(root, "/usr/bin/tool", "#!/bin/sh\n", 0o755)
    put(root, "/home/ada/.zshrc", "alias gs='git status'\nmk() { mkdir $1 }\n")
    put(root, "/home/ada/.ssh/config", "Host web localhost@127.0.0.1\n  Port 22\n")
    put(root, "/home/ada/.config/kitty/kitty.conf", "background #000\ncolor0 #000\n")
    put(root, "/home/ada/src/app/.git/HEAD", "ref: refs/heads/main\n")
    put(root, "/sys/class/net/lo/address", "00:00:00:00:00:00\n")
    put(root, "/proc/net/tcp", "h\n 0: 00000000:0016 00000000:0000 0A 0:0 0:0 0 0 0 7 1 0\n")
    (root / "etc/alternatives").mkdir()
    (root / "etc/alternatives/vi").symlink_to("/usr/bin/vim")
    environ = {"PATH": "/usr/bin:/bin", "EDITOR": "vim", "API_KEY": "k"}
    return Machine(root, Path("/home/ada"), "box", environ, (Path("/home/ada/src"),), "linux")


def found_on(machine: Machine) -> dict[tuple[str, str], Found]:
    items = [item for _, item in read_all(machine) if isinstance(item, Found)]
    return {(item.kind, item.name): item for item in items}


def test_reader_names_are_unique_and_groups_name_readers() -> None:
    names = [reader.name for reader in READERS]
    assert len(set(names)) == len(names)
    assert {member for group in GROUPS.values() for member in group} <= set(names)
    assert not set(GROUPS) & set(names)
    assert all(reader.doc and reader.kinds for reader in READERS)


def test_words_select_readers_in_their_order() -> None:
    assert select() == READERS
    assert [reader.name for reader in select(["npm", "packages", "users"])] == ["users", "dpkg", "pip", "npm"]
    assert [reader.name for reader in select(["aliases"])] == ["aliases"]


def test_an_unknown_word_is_refused_before_anything_is_read(machine: Machine) -> None:
    with pytest.raises(UsageError) as refused:
        read_all(machine, ["aliasses"])
    assert "did you mean 'aliases'?" in str(refused.value)


def test_names_are_unique_and_a_collision_is_reported(machine: Machine) -> None:
    items = list(read_all(machine))
    keys = [(item.kind, item.name) for _, item in items if isinstance(item, Found)]
    assert len(set(keys)) == len(keys)
    assert ("hosts", Skipped("a host_alias of this name was found already", "localhost@127.0.0.1")) in items


def test_every_record_bears_its_reader_and_a_kind_that_the_reader_announced(machine: Machine) -> None:
    kinds = {reader.name: reader.kinds for reader in READERS}
    for name, item in read_all(machine):
        if isinstance(item, Found):
            assert item.labels == {"scan": name} | ({"scan.home": "/home/ada"} if name in PERSONAL else {})
            assert item.kind in kinds[name]


def test_a_second_scan_and_any_selection_find_the_same(machine: Machine) -> None:
    first = found_on(machine)
    assert found_on(machine) == first
    assert len({kind for kind, _ in first}) >= 15
    backwards = [item for reader in reversed(READERS) for _, item in read_all(machine, [reader.name])]
    assert {(i.kind, i.name) for i in backwards if isinstance(i, Found)} == set(first)


def test_every_record_fits_the_catalogue_strictly(machine: Machine) -> None:
    catalogue = load_catalogue()
    for item in found_on(machine).values():
        assert validate_spec(catalogue.kind(item.kind), item.classification, item.spec, strict=True) == []


def test_sources_are_named_without_reading(machine: Machine) -> None:
    nowhere = Machine(Path("/nonexistent"), machine.home, "box", machine.environ, machine.folders, "linux")
    for reader in READERS:
        paths = reader.sources(nowhere)
        assert paths
        assert all(path.startswith("/") or reader.name == "environment" for path in paths)


def test_nothing_is_changed_by_a_scan(machine: Machine) -> None:
    def state() -> list[tuple[str, int, int]]:
        paths = [os.path.join(folder, name) for folder, dirs, files in os.walk(machine.root) for name in dirs + files]
        return [(path, os.lstat(path).st_mtime_ns, os.lstat(path).st_size) for path in sorted(paths)]

    before = state()
    found_on(machine)
    assert state() == before


def test_a_root_full_of_fifos_neither_hangs_nor_crashes(machine: Machine) -> None:
    for folder, _, files in os.walk(machine.root):
        for name in files:
            path = os.path.join(folder, name)
            os.unlink(path)
            os.mkfifo(path)
    items = [item for _, item in read_all(machine)]
    kinds = {item.kind for item in items if isinstance(item, Found)}
    assert kinds <= {"host", "path", "env_var", "symlink", "service", "repository"}
    assert sum(isinstance(item, Skipped) for item in items) >= 8


def test_an_empty_root_has_only_a_host(tmp_path: Path) -> None:
    empty = Machine(tmp_path, Path("/home/ada"), "box", {}, (), "linux")
    assert [(item.kind, item.name) for _, item in read_all(empty) if isinstance(item, Found)] == [("host", "box")]


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_readers_start_nothing_and_ask_nothing_of_the_process(module: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & {
        "subprocess",
        "socket",
        "asyncio",
        "ctypes",
        "runpy",
        "time",
    }
    text = module.read_text()
    for word in ("os.environ", "os.getenv", "os.system", "os.exec", "os.spawn", "eval(", "exec(", "os.fork"):
        assert word not in text


def test_importing_the_readers_loads_nothing_heavy() -> None:
    heavy = ("cryptography", "ruamel", "aiohttp", "asyncio")
    code = f"import sys, universal_registry.scan; print([m for m in {heavy!r} if m in sys.modules])"
    import subprocess

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout.strip() == "[]"
