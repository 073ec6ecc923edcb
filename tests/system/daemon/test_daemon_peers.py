"""Registries that are linked: pairing, edits on both sides, partitions, kills, restores, copies and wrong clocks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pgserver
import pytest
from authority import Authority
from chaos import Chaos
from linked import Node, converged, pair, until

from universal_registry.kernel.errors import RegistryError

SQLITE, POSTGRES = "sqlite", "postgresql"
MIXED = pytest.mark.parametrize("engines", [(SQLITE, SQLITE), (SQLITE, POSTGRES), (POSTGRES, POSTGRES)])


@pytest.fixture
def node(start: Any, ureg: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Node]:
    def make(name: str, engine: str = SQLITE, *, up: bool = True, **env: str) -> Node:
        if engine == POSTGRES:
            server: pgserver.Server = request.getfixturevalue("postgres")
            server.database(name)
            env = {**server.environment(name), **env}
        made = Node(tmp_path / name, start, ureg, env)
        return made.up() if up else made

    return make


@pytest.fixture
def chaos() -> Iterator[Callable[[str], Chaos]]:
    made: list[Chaos] = []

    def proxy(target: str) -> Chaos:
        made.append(Chaos(target))
        return made[-1]

    yield proxy
    for each in made:
        each.close()


# --- pairing --------------------------------------------------------------------------------------------------------


@MIXED
def test_two_commands_make_two_registries_the_same(node: Any, engines: tuple[str, str]) -> None:
    here, there = node("here", engines[0]), node("there", engines[1])
    here.set("gs", command="git status")
    there.set("gl", command="git log")
    [line] = here.ok("peer", "invite", "there").splitlines()
    assert "joined home" in there.ok("peer", "join", line, "home")
    converged(here, there)
    assert here.names() == there.names() == {"gs", "gl"}
    there.client.request("DELETE", "/v1/default/aliases/gs")
    until(lambda: here.names() == {"gl"}, "the deletion arrives")
    root = converged(here, there)
    assert here.ok("peer", "status").splitlines()[0] == f"in sync: root {root[:8]}... on 2 of 2"
    assert re.search(r"^there +in_sync +all", here.ok("peer", "ls"), re.MULTILINE)


def test_an_invitation_works_once_and_leaves_no_secret(node: Any) -> None:
    here, there, third = node("here"), node("there"), node("third")
    line = here.invite()
    assert "used" not in there.join(line)
    again = third.ureg("peer", "join", line)
    assert (again.returncode, "was used" in again.stderr, len(again.stderr.splitlines())) == (7, True, 1)
    assert third.peers()["node"] is None, "who was refused belongs to no group"
    assert here.ureg("peer", "join", here.invite()).returncode == 6
    secret = line.split(".")[-2].encode()
    assert not any(secret in file.read_bytes() for file in here.home.rglob("*") if file.is_file())
    audit = here.client.request("GET", "/v1/-/audit", query={"limit": 20}).json()["items"]
    assert f"peer:{there.peers()['node']}" in {each["actor"] for each in audit}


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda line: line[:-12], 6, "invitation"),
        (lambda line: line.replace("ureg-peer:", ""), 6, "no invitation"),
        (lambda line: re.sub(r"\.\d+$", ".1000000000", line), 9, "time is over"),
        (lambda line: re.sub(r"\.[^.]+(\.\d+)$", r".AAAAAAAAAAAAAAAAAAAAAA\1", line), 7, "was used, or taken back"),
        (lambda line: re.sub(r":\d+/", ":1/", line), 7, "refused"),
    ],
)
def test_a_line_that_is_none_is_one_clear_error(node: Any, spoil: Callable[[str], str], code: int, said: str) -> None:
    here, there = node("here"), node("there")
    done = there.ureg("peer", "join", spoil(here.invite()))
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert there.peers()["node"] is None


def test_an_invitation_can_be_taken_back_and_a_peer_removed(node: Any) -> None:
    here, there = node("here"), node("there")
    line = here.invite("there")
    [invitation] = here.peers()["invitations"]
    here.ok("peer", "rm", invitation["name"])
    assert there.ureg("peer", "join", line).returncode == 7
    pair(here, there)
    converged(here, there)
    here.ok("peer", "rm", "there")
    until(lambda: there.peer("here")["state"] == "partitioned", "whoever was removed is not talked to")
    here.set("gs", command="after")
    assert here.ureg("peer", "rm", "there").returncode == 3
    assert there.spec("gs") is None


def test_what_goes_over_the_wire_is_sealed_and_cannot_be_repeated(node: Any, chaos: Any) -> None:
    here, there = node("here"), node("there")
    proxy = chaos(here.address)
    pair(here, there, address=proxy.url)
    there.set("gs", command="a-command-that-nobody-may-read")
    converged(here, there)
    seen = bytes(proxy.seen)
    assert b"POST /v1/-/links/" in seen
    assert b"nobody-may-read" not in seen
    sent = next(each for each in re.split(rb"(?=POST )", seen) if b"/send " in each.split(b"\r\n")[0])
    before = here.frames()
    with socket.create_connection(("127.0.0.1", int(here.address.rpartition(":")[2])), 5) as replay:
        replay.sendall(sent)
        assert replay.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 409"), "answered as before, or refused"
    assert here.frames() == before, "nothing was done for it"
    strange = {"node": there.peers()["node"], "to": here.peers()["node"], "key": "A" * 43, "proof": "A" * 22}
    with pytest.raises(RegistryError) as refused:
        here.client.request("POST", "/v1/-/links", json=strange)
    assert refused.value.status == 401


# --- both ways ------------------------------------------------------------------------------------------------------


@MIXED
def test_bidirectional_through_a_partition(node: Any, chaos: Any, engines: tuple[str, str]) -> None:
    """The seed's line; edits of different fields both survive; of the same field one is shown, the other is kept."""
    here, there = node("here", engines[0]), node("service2", engines[1])
    here.ok("set", "service", "service1", "host=h1", "port=1")
    assert "planned" in here.ok("bidirectional", "--source", "service1", "--target", "service2")
    proxy = chaos(here.address)
    pair(here, there, address=proxy.url)
    converged(here, there)
    [session] = here.client.request("GET", "/v1/-/sessions").json()["items"]
    assert (session["state"], session["targets"][0]["state"]) == ("in_sync", "in_sync")
    event = here.ureg("bidirectional", "service1", "service2", '{"n": 1}')
    assert (event.returncode, "takes records and no events" in event.stderr) == (6, True)
    proxy.cut()
    until(lambda: here.peer("service2")["state"] == "partitioned" or there.peer("here")["state"] == "partitioned")
    here.ok("set", "service", "service1", "host=h2", "version=one")
    there.ok("set", "service", "service1", "port=2", "version=two")
    proxy.mend()
    specs = until(lambda: _both(here, there, {"host": "h2", "port": 2}), "both edits on both sides")
    assert specs[0] == specs[1], "the same winner on both"
    for each in (here, there):
        [review] = until(each.conflicts)
        [conflict] = review["conflicts"]
        assert {value["value"] for value in conflict["values"]} == {"one", "two"}
    until(lambda: here.client.request("GET", "/v1/-/sessions").json()["items"][0]["state"] == "conflicted")
    loser = there.conflicts()[0]["conflicts"][0]["values"][1]["value"]
    assert loser in there.ok("conflict", "show", "service/service1")
    there.ok("conflict", "resolve", "service1", "--take", "/spec/version=1")
    until(lambda: here.conflicts() == there.conflicts() == [], "resolved once, gone everywhere")
    assert all(spec["version"] == loser for spec in until(lambda: _both(here, there, {"version": loser})))
    assert here.ureg("conflict", "resolve", "service1", "--shown").returncode == 3


def _both(here: Node, there: Node, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    specs = [node.client.request("GET", "/v1/default/services/service1").json()["spec"] for node in (here, there)]
    return specs if all(wanted.items() <= spec.items() for spec in specs) else []


def test_two_programs_that_set_it_right_each_its_own_way(node: Any) -> None:
    here, there = node("here"), node("there")
    pair(here, there)
    converged(here, there)
    for number in range(7):
        for one, other in ((here, there), (there, here)):
            spec = {"command": f"{one.home.name}{number}"}
            one.set("gs", **spec)
            until(lambda other=other, spec=spec: other.spec("gs") == spec)
    for one, other in ((here, there), (there, here)):
        [said] = until(lambda one=one: one.said("to and fro"))
        assert (said["level"], said["record"], said["peer"]) == ("error", "alias/default/gs", other.peers()["node"])


def test_a_link_keeps_to_its_scope(node: Any) -> None:
    here, there = node("here"), node("there")
    pair(here, there, scope="kind=alias")
    here.ok("set", "service", "pay", "port=1")
    here.set("gs", command="git status")
    converged(here, there)
    assert there.names() == {"gs"}
    assert there.ureg("get", "service", "pay").returncode == 3
    refused = here.ureg("bidirectional", "--source", "service/pay", "--target", "there")
    assert (refused.returncode, "does not carry" in refused.stderr) == (6, True)
    assert here.ok("bidirectional", "--source", "kind=alias", "--target", "there")
    assert here.ureg("peer", "invite", "--scope", "labels.tier=x").returncode == 6


@pytest.mark.parametrize("engines", [(SQLITE,) * 3, (POSTGRES, SQLITE, POSTGRES)])
def test_an_audience_is_kept_by_the_one_between(node: Any, engines: tuple[str, ...]) -> None:
    first, relay, last = (node(name, engine) for name, engine in zip(("first", "relay", "last"), engines, strict=True))
    pair(relay, first)
    pair(relay, last)
    converged(first, relay, last)
    ids = [each.peers()["node"] for each in (first, relay)]
    assert "namespace=payroll: " in relay.ok("peer", "audience", "namespace=payroll", "here", "first")
    until(lambda: last.peer("relay")["state"] == "degraded", "others are set there")
    assert "other audiences" in last.peer("relay")["reason"]
    for each in (first, last):
        each.ok("peer", "audience", "namespace=payroll", *ids)
    first.client.request("PATCH", "/v1/payroll/aliases/salaries", json={"spec": {"command": "for-two"}})
    first.set("gs", command="git status")
    until(lambda: last.spec("gs"), "all others pass")
    until(lambda: all(each.peers()["converged"] for each in (first, relay, last)), "each link by its own root")
    assert relay.ok("peer", "status").startswith("in sync: root ")
    path = "/v1/payroll/aliases"
    assert [len(each.client.request("GET", path).json()["items"]) for each in (first, relay, last)] == [1, 1, 0]
    assert not any(b"for-two" in file.read_bytes() for file in last.home.rglob("*") if file.is_file())
    for words in (("kind=endpoint", "here"), ("namespace=payroll", "nobody"), ("namespace=payroll",), ("", "here")):
        refused = first.ureg("peer", "audience", *words)
        assert refused.returncode in (2, 3, 6), words
        assert len(refused.stderr.splitlines()) == 1
    assert first.peers()["audiences"] == {"namespace=payroll": sorted(ids)}
    audited = first.client.request("GET", "/v1/-/audit", query={"limit": 50}).json()["items"]
    assert "peer.audience" in {each["action"] for each in audited}
    for each in (first, relay, last):
        each.ok("peer", "audience", "namespace=payroll", "--all")
    until(lambda: last.client.request("GET", path).json()["items"], "all may have it")
    converged(first, relay, last)


def test_how_far_behind_whose_changes_one_is(node: Any) -> None:
    """Shown per node at which they were made; also of one that this registry has no link with."""
    first, relay, last = node("first"), node("relay"), node("last")
    pair(relay, first)
    pair(relay, last)
    first.set("gs", command="x")
    relay.set("gl", command="x")
    converged(first, relay, last)
    assert [(each["peer"], each["lag"]) for each in last.peers()["origins"] if each["peer"]] == [("relay", 0)]
    [far] = [each for each in last.peers()["origins"] if each["node"] == first.peers()["node"]]
    assert far == {"node": first.peers()["node"], "peer": None, "lag": 0}
    told = last.client.request("GET", "/metrics").body.decode()
    for line in ('ureg_peer_linked{peer="relay"} 1.0', 'ureg_peer_in_sync{peer="relay"} 1.0',
                 'ureg_peer_behind{peer="relay"} 0.0', 'ureg_peer_conflicts{peer="relay"} 0.0',
                 f'ureg_origin_lag{{node="{far["node"]}"}} 0.0'):  # fmt: skip
        assert line in told
    last.ok("peer", "pause", "relay")
    assert 'ureg_peer_linked{peer="relay"} 0.0' in last.client.request("GET", "/metrics").body.decode()
    assert "LAG" in last.ok("peer", "ls")


def test_a_paused_peer_gets_nothing_until_it_is_resumed(node: Any) -> None:
    here, there = node("here"), node("there")
    pair(here, there)
    converged(here, there)
    here.ok("peer", "pause", "there")
    until(lambda: there.peer("here")["state"] == "partitioned")
    here.set("gs", command="while paused")
    assert here.peer("there")["state"] == "paused"
    assert here.ok("peer", "resume", "there") == "there goes on\n"
    until(lambda: there.spec("gs") == {"command": "while paused"})


# --- what goes wrong ------------------------------------------------------------------------------------------------


@MIXED
def test_killed_while_it_exchanges(node: Any, load: Any, engines: tuple[str, str]) -> None:
    """Three kills of either side under load on both: what was acknowledged is on both in the end."""
    here, there = node("here", engines[0]), node("there", engines[1])
    env = {"REGISTRY_LISTEN": here.address}
    pair(here, there)
    acknowledged: set[str] = set()
    for number in range(3):
        victim = (here, there)[number % 2]
        writers = [load(each.daemon, prefix=f"{each.home.name}{number}-") for each in (here, there)]
        for each in writers:
            each.until(40)
        victim.daemon.end(signal.SIGKILL)
        writers[number % 2].finish()
        victim.up(**(env if victim is here else {}))
        (there if victim is here else here).set(f"other{number}", command="x")
        writers[1 - number % 2].until(80)
        (there if victim is here else here).daemon.end(signal.SIGTERM)
        writers[1 - number % 2].finish()
        (there if victim is here else here).up(**(env if victim is not here else {}))
        acknowledged |= {name for each in writers for name in each.acknowledged}
    converged(here, there)
    assert here.names() == there.names() >= acknowledged


def test_a_restored_backup_gets_its_lost_writes_back(node: Any, tmp_path: Path) -> None:
    here, there = node("here"), node("there")
    pair(here, there)
    there.set("old", command="before the backup")
    converged(here, there)
    there.daemon.end()
    there.up()
    assert not there.said("a new name for peers"), "a plain restart is none"
    there.daemon.end()
    backup = tmp_path / "backup"
    shutil.copytree(there.home, backup)
    there.up()
    there.set("lost", command="after the backup")
    there.set("old", command="changed after it")
    converged(here, there)
    there.daemon.end()
    shutil.rmtree(there.home)
    shutil.copytree(backup, there.home)
    here.set("new", command="meanwhile")
    there.up()
    assert there.said("a new name for peers")
    there.set("fresh", command="after the restore")
    until(lambda: there.names() == here.names() == {"old", "lost", "new", "fresh"}, "lost writes come back")
    converged(here, there)
    assert there.spec("old") == here.spec("old") == {"command": "changed after it"}
    assert here.conflicts() == there.conflicts() == []


def test_killed_while_nothing_is_to_be_said(node: Any) -> None:
    """The poll of a connection that broke is no sign of life: who comes back at once is not taken for a copy."""
    here, there = node("here"), node("there")
    pair(here, there)
    converged(here, there)
    there.daemon.end(signal.SIGKILL)
    there.up()
    there.set("after", command="the kill")
    until(lambda: here.names() == {"after"}, "the change arrives")
    converged(here, there)
    assert not here.said("clone")


def test_a_copied_folder_is_refused_with_an_alarm(node: Any) -> None:
    here, there = node("here"), node("there")
    pair(here, there)
    converged(here, there)
    there.daemon.end()
    copy = node("copy", up=False)
    shutil.copytree(there.home, copy.home)
    shutil.rmtree(copy.home / "run")
    shutil.rmtree(copy.home / "logs")
    there.up()
    converged(here, there)
    copy.up()
    until(lambda: here.said("clone"), "the alarm")
    until(lambda: here.peer("there")["state"] == "degraded")
    assert "there twice" in here.peer("there")["reason"]
    copy.set("gs", command="of the copy")
    there.set("gl", command="of the original")
    until(lambda: there.peer("here")["state"] in ("degraded", "partitioned"))
    assert here.names() == set(), "neither is listened to"
    copy.daemon.end()
    here.ok("peer", "resume", "there")
    there.daemon.end()
    there.up()
    until(lambda: here.names() == {"gl"}, "after the copy is gone and somebody said so, it goes on")


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_is_off_by_a_day(node: Any, days: int) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime here")
    here = node("here")
    there = node("there", LD_PRELOAD=str(library), FAKETIME=f"{days:+}d", FAKETIME_DONT_FAKE_MONOTONIC="1")
    body = {"address": f"http://{here.address}", "lasts": "3d", "name": "there"}
    there.join(here.client.request("POST", "/v1/-/peers/invitations", json=body).json()["line"], "here")
    there.set("gs", command="from tomorrow")
    converged(here, there)
    here.set("gs", command="known of it, and later")
    until(lambda: there.spec("gs") == {"command": "known of it, and later"}, "causality, not clocks")
    converged(here, there)
    assert here.conflicts() == there.conflicts() == []
    assert abs(here.peer("there")["clock_offset_ms"] - days * 86_400_000) < 60_000
    assert f"clock {days * 86:+}" in here.ok("peer", "status")


def test_a_wiped_node_heals(node: Any) -> None:
    here, there = node("here"), node("there")
    pair(here, there)
    for number in range(20):
        there.set(f"a{number}", command="x")
    converged(here, there)
    there.daemon.end()
    shutil.rmtree(there.home)
    there.up()
    here.ok("peer", "rm", "there")
    pair(here, there)
    converged(here, there)
    assert there.names() == here.names() == {f"a{number}" for number in range(20)}


@pytest.mark.parametrize("way", ["loses_requests", "loses_answers"])
def test_a_network_that_loses_one_way(node: Any, chaos: Any, way: str) -> None:
    here, there = node("here"), node("there")
    proxy = chaos(here.address)
    pair(here, there, address=proxy.url)
    converged(here, there)
    setattr(proxy, way, True)
    here.set("gs", command="from here")
    there.set("gl", command="from there")
    proxy.mend()
    proxy.break_all()
    converged(here, there)
    assert here.names() == there.names() == {"gs", "gl"}


def test_a_slow_network(node: Any, chaos: Any) -> None:
    here, there = node("here"), node("there")
    proxy = chaos(here.address)
    proxy.delay = 0.05
    pair(here, there, address=proxy.url)
    for number in range(10):
        (here, there)[number % 2].set(f"a{number}", command="x")
    converged(here, there)
    assert len(here.names()) == len(there.names()) == 10


def test_a_cycle_settles_and_then_says_nothing(node: Any) -> None:
    """One key edited on all three at once: a bounded number of frames, and none when all is quiet."""
    nodes = [node(name) for name in ("north", "south", "east")]
    for number, each in enumerate(nodes):
        pair(each, nodes[(number + 1) % 3])
    converged(*nodes)
    names = [each.home.name for each in nodes]
    for each in nodes:
        for name in set(names) - {each.home.name}:
            each.ok("peer", "pause", name)
    for each in nodes:
        each.set("gs", command=f"from {each.home.name}")
    for each in nodes:
        for name in set(names) - {each.home.name}:
            each.ok("peer", "resume", name)
    before = [0, 0, 0]
    until(lambda: all(each.conflicts() for each in nodes))
    converged(*nodes)
    specs = [each.spec("gs") for each in nodes]
    assert specs[0] == specs[1] == specs[2]
    assert {value["value"] for value in nodes[0].conflicts()[0]["conflicts"][0]["values"]} == {
        "from north", "from south", "from east",
    }  # fmt: skip
    spent = [after - one for after, one in zip((each.frames() for each in nodes), before, strict=True)]
    assert sum(spent) <= 180, f"frames to settle: {spent}"
    quiet = [each.frames() for each in nodes]
    # Some rounds of comparing pass: each is a second, and whoever waits for a change here waits for nothing.
    nodes[0].client.request("GET", "/v1/changes", query={"from": "now", "wait": 4})
    assert [each.frames() for each in nodes] == quiet


def test_a_link_that_nobody_opened(node: Any) -> None:
    here = node("here")
    for path in ("/v1/-/links/0/send", "/v1/-/links/0/poll"):
        with pytest.raises(RegistryError) as refused:
            here.client.request("POST", path, body=b"x")
        assert refused.value.status == 404


def test_of_several_daemons_on_one_database_one_opens_the_link(
    node: Any, tmp_path: Path, postgres: pgserver.Server
) -> None:
    here, first = node("here"), node("first", POSTGRES)
    pair(here, first)
    converged(here, first)
    second = node("second", up=False, **postgres.environment("first"))
    (second.home / "config").mkdir(parents=True, mode=0o700)
    for file in (first.home / "config").iterdir():
        if file.is_file():
            (second.home / "config" / file.name).write_bytes(file.read_bytes())
            (second.home / "config" / file.name).chmod(0o600)
    second.up()
    second.set("gs", command="by the second daemon")
    until(lambda: here.spec("gs") == {"command": "by the second daemon"}, "the first one hears of it, and tells")
    assert not here.said("clone")
    first.daemon.end(signal.SIGKILL)
    second.set("gl", command="after the first is gone")
    until(lambda: here.spec("gl") == {"command": "after the first is gone"}, "the second takes over")
    until(lambda: here.peer("first")["state"] == "in_sync")
    assert not here.said("clone")


@pytest.mark.parametrize("engines", [(SQLITE,) * 4, (SQLITE, POSTGRES, SQLITE, POSTGRES)])
def test_a_mesh_links_each_with_each_and_outlives_its_maker(node: Any, engines: tuple[str, ...]) -> None:
    hub, *others = (node(name, engine) for name, engine in zip(("hub", "n1", "n2", "n3"), engines, strict=True))
    for each in others:
        pair(hub, each)
    assert "here and at n1, n2, n3" in hub.ok("mesh", "n1", "n2", "n3")
    for each in (hub, *others):
        until(lambda each=each: len(each.peers()["items"]) == 3, "each knows each")
    root = converged(hub, *others)
    assert hub.ok("peer", "status").splitlines()[0] == f"in sync: root {root[:8]}... on 4 of 4"
    [session] = hub.client.request("GET", "/v1/-/sessions").json()["items"]
    assert (session["mode"], session["state"]) == ("mesh", "in_sync")
    address = hub.address
    hub.daemon.end(signal.SIGKILL)
    others[0].set("gs", command="without the hub")
    until(lambda: all(each.spec("gs") for each in others), "the others need no hub")
    hub.up(REGISTRY_LISTEN=address)
    until(lambda: hub.spec("gs") == {"command": "without the hub"})


# --- TLS, and real networks -----------------------------------------------------------------------------------------


def _tls(folder: Path, host: str, **how: Any) -> dict[str, str]:
    folder.mkdir()
    file = str(Authority(folder).pem(host, **how))
    return {"REGISTRY_TLS_CERT": file, "REGISTRY_TLS_KEY": file}


OF_ITS_OWN = {"host": "127.0.0.1", "own": True}
OVER, OF_ANOTHER = {"host": "127.0.0.1", "days": (-30, -1)}, {"host": "other.example"}


@pytest.mark.parametrize("how", [OF_ITS_OWN, OVER, OF_ANOTHER], ids=["its own", "expired", "of another name"])
def test_over_tls_any_certificate_will_do(node: Any, tmp_path: Path, chaos: Any, how: dict[str, Any]) -> None:
    """It is an envelope: who is there is proved inside of it, by the key that was pinned when pairing."""
    here, there = node("here", **_tls(tmp_path / "tls", **how)), node("there")
    proxy = chaos(here.address)
    pair(here, there, address=proxy.url.replace("http:", "https:"))
    there.set("gs", command="git status")
    converged(here, there)
    assert here.names() == {"gs"}
    assert proxy.seen.startswith(b"\x16\x03"), "a TLS handshake"
    assert b"/v1/-/links" not in proxy.seen


def test_who_answers_in_the_place_of_a_peer_is_nobody_with_the_best_certificate(
    node: Any, tmp_path: Path, chaos: Any
) -> None:
    here, there = node("here", **_tls(tmp_path / "tls", **OF_ITS_OWN)), node("there")
    other = node("other", **_tls(tmp_path / "other-tls", host="127.0.0.1"))
    pair(other, node("friend"), address=f"https://{other.address}")  # it is a node like any
    proxy = chaos(here.address)
    address = proxy.url.replace("http:", "https:")
    pair(here, there, address=address)
    converged(here, there)
    line = here.invite("later", address=address)
    host, _, port = other.address.rpartition(":")
    proxy.target = (host, int(port))
    proxy.break_all()
    there.set("gs", command="for one alone")
    until(lambda: "not paired" in there.peer("here")["reason"])
    assert there.peer("here")["state"] == "partitioned"
    joined = node("third").ureg("peer", "join", line)
    assert (joined.returncode != 0, len(joined.stderr.splitlines())) == (True, 1)
    assert other.names() == set()
    proxy.target = ("127.0.0.1", int(here.address.rpartition(":")[2]))
    proxy.break_all()
    converged(here, there)
    assert here.spec("gs") == {"command": "for one alone"}


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: ip {words[0]}: {done.stderr.strip()}")


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: 10.213.1.1 and 10.213.1.2."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need root and ip")
    names = f"ureg{os.getpid()}a", f"ureg{os.getpid()}b"
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable0", "netns", names[1])
        for number, name in enumerate(names, 1):
            _ip("-n", name, "addr", "add", f"10.213.1.{number}/24", "dev", "cable0")
            _ip("-n", name, "link", "set", "cable0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_in_two_network_namespaces_with_a_cable_that_is_pulled(
    node: Any, tmp_path: Path, cable: tuple[str, str]
) -> None:
    serve = (sys.executable, "-P", "-m", "universal_registry", "serve")
    env = {"REGISTRY_LISTEN": "10.213.1.1:8443", **_tls(tmp_path / "tls", "10.213.1.1", own=True)}
    here, there = node("here", up=False, **env), node("there", POSTGRES, up=False)
    here.up(command=("ip", "netns", "exec", cable[0], *serve))
    there.up(command=("ip", "netns", "exec", cable[1], *serve))
    pair(here, there, address="https://10.213.1.1:8443")
    converged(here, there)
    _ip("-n", cable[1], "link", "set", "cable0", "down")
    here.set("gs", command="from here", shell="zsh")
    there.set("gs", command="from there")
    _ip("-n", cable[1], "link", "set", "cable0", "up")
    until(lambda: here.conflicts() and there.conflicts(), "the partition heals")
    converged(here, there)
    assert here.spec("gs") == there.spec("gs")


def test_a_daemon_that_stops_waits_for_no_peer(node: Any) -> None:
    here, there = node("here"), node("there")
    pair(here, there)
    converged(here, there)
    assert here.daemon.end() == 0
    stopping, stopped = ([each for each in here.daemon.events() if each["event"] == word][-1] for word in _LAST)
    took = datetime.fromisoformat(stopped["ts"]) - datetime.fromisoformat(stopping["ts"])
    assert took < timedelta(seconds=1.5), "a poll that waits is answered"
    until(lambda: there.peer("here")["state"] == "partitioned")


_LAST = ("stopping", "stopped")
