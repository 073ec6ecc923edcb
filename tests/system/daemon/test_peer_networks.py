"""Registries on hosts of their own (network namespaces): partitions, one way or both, lost packets, kills, a backup of
yesterday, a copied folder, and clocks that are off by a day; SQLite and PostgreSQL mixed."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from linked import Node, converged, pair, until
from network import Network

pytestmark = pytest.mark.slow
SQLITE, POSTGRES = "sqlite", "postgresql"
PORT = 8443
SERVE = (sys.executable, "-P", "-m", "universal_registry", "serve")


class Host:
    """A registry on a host of the network."""

    def __init__(self, node: Node, network: Network, number: int) -> None:
        self.node = node
        self.url = f"https://{network.address(number)}:{PORT}"
        self._command = network.on(number, *SERVE)

    def up(self) -> Node:
        return self.node.up(command=self._command)

    def kill(self) -> None:
        self.node.daemon.end(signal.SIGKILL)


class Hosts:
    """Makes them, and the network."""

    def __init__(self, folder: Path, start: Any, ureg: Any, request: pytest.FixtureRequest) -> None:
        self._folder = folder
        self._start, self._ureg = start, ureg
        self._request = request
        self._tls = ""
        self.network: Network | None = None

    def __call__(self, *engines: str, spare: int = 0, clocks: dict[int, dict[str, str]] | None = None) -> list[Host]:
        """One for each engine, that runs; with `clocks` of their own, by number; and hosts to `spare`."""
        self.network = Network(len(engines) + spare)
        self._tls = str(Authority(self._folder).pem("registry", own=True))
        found = [self.add(number, engine, (clocks or {}).get(number, {})) for number, engine in enumerate(engines, 1)]
        for each in found:
            each.up()
        return found

    def add(self, number: int, engine: str, env: dict[str, str] | None = None) -> Host:
        """A registry on a host; it does not run yet."""
        assert self.network is not None
        listen = {"REGISTRY_LISTEN": f"{self.network.address(number)}:{PORT}"}
        env = {"REGISTRY_TLS_CERT": self._tls, "REGISTRY_TLS_KEY": self._tls, **listen, **(env or {})}
        if engine == POSTGRES:
            server = self._request.getfixturevalue("postgres")
            server.database(f"h{number}")
            env |= server.environment(f"h{number}")
        return Host(Node(self._folder / f"h{number}", self._start, self._ureg, env), self.network, number)


@pytest.fixture
def hosts(start: Any, ureg: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    made = Hosts(tmp_path, start, ureg, request)
    yield made
    if made.network is not None:
        made.network.close()


def link(one: Host, other: Host) -> None:
    pair(one.node, other.node, address=one.url, lasts="3d")


def clock(days: int) -> dict[str, str]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime here")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{days:+}d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def one_conflict(*nodes: Node) -> None:
    """All list the same values of the same record."""
    lists = [each.conflicts() for each in nodes]
    assert [len(found) for found in lists] == [1] * len(nodes)
    assert all(found == lists[0] for found in lists)


def test_three_hosts_with_partitions_one_way_and_both(hosts: Hosts) -> None:
    first, second, _ = made = hosts(SQLITE, POSTGRES, SQLITE)
    for one, other in combinations(made, 2):
        link(one, other)
    one, two, three = (each.node for each in made)
    network = hosts.network
    assert network is not None
    one.set("gs", command="git status")
    converged(one, two, three)
    network.block(1, 2)
    one.set("gl", command="around")
    until(lambda: two.spec("gl"), "what cannot go straight goes by the third")
    network.block(1, 2, 3)
    one.set("gs", command="from one")
    two.set("gs", command="from two", shell="zsh")
    until(lambda: three.spec("gs") == {"command": "from two", "shell": "zsh"})
    assert two.spec("gs") == {"command": "from two", "shell": "zsh"}, (
        "what the first says reaches nobody; it may still hear"
    )
    assert not two.conflicts()
    network.pull(3)
    network.mend(1)
    until(lambda: one.conflicts() and two.conflicts(), "the first two agree without the third")
    three.set("alone", command="x")
    second.kill()
    one.set("meanwhile", command="x")
    network.mend()
    second.up()
    converged(one, two, three, patience=50)
    assert one.names() == two.names() == three.names() == {"gs", "gl", "alone", "meanwhile"}
    one_conflict(one, two, three)
    root = converged(one, two, three)
    assert first.node.ok("peer", "status").splitlines()[0] == f"in sync: root {root[:8]}... on 3 of 3"


def test_thirty_percent_of_all_packets_are_lost(hosts: Hosts) -> None:
    made = hosts(SQLITE, POSTGRES, SQLITE)
    network = hosts.network
    assert network is not None
    for one, other in pairwise(made):
        link(one, other)
    nodes = [each.node for each in made]
    converged(*nodes)
    for number in network.hosts:
        network.lose(number, 30)
    everything: set[str] = set()
    for number in range(200):  # how much is sent is the links' affair: write until each host has lost something
        for each in nodes:
            each.set(f"{each.home.name}-{number}", command="x" * 200)
            everything.add(f"{each.home.name}-{number}")
        if number >= 20 and all(network.lost(host) > 5 for host in network.hosts):
            break
    else:
        raise AssertionError("hardly anything was lost")
    until(lambda: all(each.names() == everything for each in nodes), "in spite of it", patience=50)
    network.mend()
    converged(*nodes)


def test_five_hosts_with_everything_that_goes_wrong(hosts: Hosts, tmp_path: Path) -> None:
    """Clocks a day ahead and behind, a partition, a kill, and a backup of yesterday that is put back."""
    clocks = {3: clock(-1), 4: clock(1), 5: clock(-1)}
    made = hosts(SQLITE, POSTGRES, SQLITE, POSTGRES, SQLITE, clocks=clocks)
    network = hosts.network
    assert network is not None
    for one, other in zip(made, [*made[1:], made[0]], strict=True):
        link(one, other)
    nodes = [each.node for each in made]
    restored = made[2]
    restored.node.set("old", command="of yesterday")
    converged(*nodes, patience=40)
    restored.node.daemon.end()
    shutil.copytree(restored.node.home, tmp_path / "backup")
    for name in clocks[3]:
        del restored.node.env[name]
    restored.up().set("lost", command="after the backup")
    until(lambda: all(each.spec("lost") for each in nodes), "it is everywhere")
    network.block(1, 3, 4, 5)
    network.block(2, 3, 4, 5)
    for number in (3, 4, 5):
        network.block(number, 1, 2)
    nodes[0].set("old", command="from one side")
    nodes[3].set("old", command="from the other side")
    made[1].kill()
    nodes[0].set("while-killed", command="x")
    restored.node.daemon.end()
    shutil.rmtree(restored.node.home)
    shutil.copytree(tmp_path / "backup", restored.node.home)
    made[1].up().set("after-the-kill", command="x")
    restored.up().set("fresh", command="after the restore")
    assert restored.node.said("a new name for peers")
    network.mend()
    converged(*nodes, patience=50)
    names = {"old", "lost", "while-killed", "after-the-kill", "fresh"}
    assert [each.names() for each in nodes] == [names] * 5
    one_conflict(*nodes)
    values = {each["value"] for each in nodes[0].conflicts()[0]["conflicts"][0]["values"]}
    assert values == {"from one side", "from the other side"}


def test_a_copied_folder_on_another_host(hosts: Hosts) -> None:
    first, second, third = hosts(SQLITE, SQLITE, POSTGRES, spare=1)
    link(first, second)
    link(first, third)
    one, two, three = first.node, second.node, third.node
    converged(one, two, three)
    two.daemon.end()
    copy = hosts.add(4, SQLITE)
    shutil.copytree(two.home, copy.node.home, ignore=shutil.ignore_patterns("run", "logs"))
    second.up()
    until(lambda: one.peer("h2")["state"] == "in_sync")
    copy.up()
    until(lambda: one.said("clone"), "the alarm")
    until(lambda: one.peer("h2")["state"] == "degraded")
    copy.node.set("gs", command="of the copy")
    two.set("gl", command="of the original")
    one.set("gd", command="goes on with the others")
    until(lambda: three.spec("gd"))
    assert one.names() == {"gd"}, "neither is listened to"
    copy.node.daemon.end()
    one.ok("peer", "resume", "h2")
    two.daemon.end()
    second.up()
    converged(one, two, three, patience=40)
    assert three.names() == {"gd", "gl"}
