"""The readers on the machine that runs the tests, counted against the machine's own tools."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from universal_registry.kernel.ids import check_name
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.validate import validate_spec
from universal_registry.scan import Found, Machine, Skipped, read_all

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the files of a Linux system")


@pytest.fixture(scope="module")
def machine() -> Machine:
    folders = (Path(__file__).resolve().parents[2],)
    return Machine(Path("/"), Path.home(), os.uname().nodename, dict(os.environ), folders, sys.platform)


def scan(machine: Machine, *names: str) -> list[Found]:
    return [item for _, item in read_all(machine, names or None) if isinstance(item, Found)]


def output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here to compare with")
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_packages_equal_dpkg_query(machine: Machine) -> None:
    rows = output("dpkg-query", "-W", "-f", "${Package}\\t${Version}\\t${Architecture}\\n").splitlines()
    found = [(item.name, item.spec.get("version", ""), item.spec["architecture"]) for item in scan(machine, "dpkg")]
    ours = [f"{name.removesuffix(':' + arch)}\t{version}\t{arch}" for name, version, arch in found]
    assert len(ours) == len(output("dpkg-query", "-W").splitlines())
    assert sorted(ours) == sorted(rows)


def test_accounts_equal_the_files_and_getent(machine: Machine) -> None:
    users = {item.name: item.spec["uid_number"] for item in scan(machine, "users")}
    groups = {item.title: item.spec["gid"] for item in scan(machine, "groups")}
    local = {row.split(":")[0] for row in Path("/etc/passwd").read_text().splitlines()}
    assert set(users) == local
    assert len(groups) == len(Path("/etc/group").read_text().splitlines())
    passwd = (row.split(":") for row in output("getent", "passwd").splitlines())
    assert users.items() >= {(row[0], int(row[2])) for row in passwd if row[0] in local}


def test_services_equal_the_lines_of_the_file(machine: Machine) -> None:
    if not os.path.exists("/etc/services"):
        pytest.skip("no /etc/services here")
    rows = [line.split() for line in Path("/etc/services").read_text().splitlines() if re.match(r"[^#\s]", line)]
    assert len(scan(machine, "services")) == len({(row[0], row[1].partition("/")[2]) for row in rows})


def test_alternatives_equal_the_links(machine: Machine) -> None:
    if not os.path.isdir("/etc/alternatives"):
        pytest.skip("no /etc/alternatives here")
    links = {entry.path: os.readlink(entry.path) for entry in os.scandir("/etc/alternatives") if entry.is_symlink()}
    found = {item.name: item for item in scan(machine, "alternatives")}
    assert {name: item.spec["target"] for name, item in found.items()} == links
    assert {name: item.spec["exists"] for name, item in found.items()} == {name: os.path.exists(name) for name in links}


def test_commands_equal_a_walk_of_path(machine: Machine) -> None:
    folders = {os.path.realpath(entry) for entry in machine.search_path() if os.path.isdir(entry)}
    expected = {
        f"{folder}/{name}"
        for folder in folders
        for name in os.listdir(folder)
        if os.path.isfile(f"{folder}/{name}") and os.stat(f"{folder}/{name}").st_mode & 0o111
    }
    assert {item.name for item in scan(machine, "commands")} == expected


def test_python_packages_equal_importlib_metadata(machine: Machine) -> None:
    found = scan(machine, "pip")
    by_folder = Counter(item.spec["location"] for item in found)
    if not by_folder:
        pytest.skip("no site folder below PATH here")
    for folder, count in by_folder.items():
        names = {
            re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
            for each in importlib.metadata.distributions(path=[folder])
            if each.metadata["Name"]
        }
        assert count == len(names), folder


def test_certificates_equal_the_distinct_ones_in_the_folder(machine: Machine) -> None:
    folder = Path("/etc/ssl/certs")
    files = [path for path in folder.glob("*.pem") if path.is_file()] if folder.is_dir() else []
    if not files:
        pytest.skip("no single certificate files here")
    texts = [path.read_text() for path in [*files, *folder.glob("*.crt")] if path.name != "ca-certificates.crt"]
    blocks = [
        block for text in texts for block in re.findall("-----BEGIN CERT.*?END CERTIFICATE-----", text, re.DOTALL)
    ]
    expected = {hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest() for block in blocks}
    found = [item.spec for item in scan(machine, "certificates") if item.spec["path"].startswith(f"{folder}/")]
    assert {spec["fingerprint_sha256"] for spec in found} == expected


def test_a_socket_that_listens_now_is_found_with_its_program(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = f"tcp/127.0.0.1:{server.getsockname()[1]}"
        found = {item.name: item for item in scan(machine, "sockets")}
        assert found[name].spec["process"] == Path("/proc/self/comm").read_text().strip()
    assert name not in {item.name for item in scan(machine, "sockets")}


def test_a_real_repository_is_described_as_git_describes_it(machine: Machine, tmp_path: Path) -> None:
    git = ("git", "-C", str(tmp_path / "work"), "-c", "user.name=t", "-c", "user.email=t@example.invalid")
    output("git", "init", "-q", "-b", "trunk", str(tmp_path / "work"))
    output(*git, "commit", "-q", "--allow-empty", "-m", "first")
    output(*git, "remote", "add", "origin", "https://me:hunter2@host.invalid/x.git")
    output(*git, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    commit = output(*git, "rev-parse", "HEAD").strip()
    output(*git, "pack-refs", "--all")
    local = Machine(Path("/"), tmp_path, "box", {}, (tmp_path,), sys.platform)
    found = {item.name: item.spec for item in scan(local, "git")}
    assert {path: (spec["branch"], spec["commit"], spec["url"]) for path, spec in found.items()} == {
        str(tmp_path / "work"): ("trunk", commit, "https://host.invalid/x.git"),
        str(tmp_path / "side"): ("side", commit, "https://host.invalid/x.git"),
    }


def test_the_whole_scan_fits_the_catalogue_and_a_second_one_changes_nothing(machine: Machine) -> None:
    catalogue = load_catalogue()
    first = {(item.kind, item.name): item for item in scan(machine)}
    for item in first.values():
        assert check_name(item.name) == item.name
        assert validate_spec(catalogue.kind(item.kind), item.classification, item.spec, strict=True) == []
    assert {"host", "principal", "command", "path", "env_var", "package"} <= {kind for kind, _ in first}
    second = {(item.kind, item.name): item for item in scan(machine)}
    changed = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
    assert {key for key in changed if key[0] != "endpoint"} == set()  # other tests may open sockets meanwhile


def test_nothing_crashes_and_every_skip_has_a_reason(machine: Machine) -> None:
    skipped = [item for _, item in read_all(machine) if isinstance(item, Skipped)]
    assert all(item.reason and item.path for item in skipped)
