"""Three real daemons on one PostgreSQL: each works at its share of the lanes; one is killed and one is frozen in the
middle of it; what they had is taken over in time, and nothing is lost, sent under another id, or applied backwards."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pgserver
import pytest
from pressure import Daemon, Inbox, Progress, lines_in, send

from universal_registry.client.listen import State

TARGETS = 9
AHEAD = 100
TAKEN_OVER = 35.0


class Cluster:
    """Daemons on one database, with one key, each in a home of its own."""

    def __init__(self, folder: Path, server: pgserver.Server, name: str) -> None:
        server.database(name)
        self._server, self._name, self._folder = server, name, folder
        self.daemons: list[Daemon] = []

    def add(self) -> Daemon:
        home = self._folder / f"home-{len(self.daemons)}"
        if self.daemons:
            shutil.copytree(self.daemons[0].places.home / "config", home / "config")
        daemon = Daemon(home, **self._server.environment(self._name))
        self.daemons.append(daemon)
        daemon.start()
        return daemon

    def shares(self) -> Counter[str]:
        """How many lanes each daemon holds a lease of."""
        rows = self._server.sql(
            "SELECT owner FROM propagation.lanes JOIN propagation.daemons USING (owner)", self._name
        )
        return Counter(rows.split())

    def close(self) -> None:
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGCONT)
                daemon.process.kill()
                daemon.process.wait()


@pytest.fixture
def cluster(tmp_path: Path, postgres: pgserver.Server) -> Iterator[Cluster]:
    made = Cluster(tmp_path, postgres, "cluster")
    yield made
    made.close()


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def inboxes(progress: Progress) -> Iterator[list[Inbox]]:
    made = [Inbox(f"t{number}", progress) for number in range(TARGETS)]
    yield made
    for inbox in made:
        inbox.close()


class Writer:
    """Writes without end through a daemon that lives, never much more than has arrived, and counts what was
    acknowledged."""

    def __init__(self, daemon: Daemon, inboxes: list[Inbox]) -> None:
        self.acknowledged = 0
        self._client = daemon.client()
        self._inboxes = inboxes
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(0.02):
            if self.acknowledged - max(len(inbox.heard) for inbox in self._inboxes) < AHEAD:
                send(self._client, {f"n{self.acknowledged % 40}": f"command {self.acknowledged}"})
                self.acknowledged += 1

    def end(self) -> None:
        self._ending.set()
        self._thread.join()


def within(condition: Callable[[], object], what: str, seconds: float = TAKEN_OVER) -> float:
    """Look every now and then, by the clock, until it holds: how long that took."""
    began, never = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - began < seconds, f"it was never {what}"
        never.wait(0.1)
    return time.monotonic() - began


def arrived_everywhere(daemon: Daemon, inboxes: list[Inbox]) -> None:
    with daemon.client() as client:
        expected = lines_in(client)
    within(lambda: all(inbox.arrived() >= expected for inbox in inboxes), "everywhere")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_lanes_are_shared_and_taken_over(cluster: Cluster, inboxes: list[Inbox], progress: Progress) -> None:
    one = cluster.add()
    with one.client() as client:
        for inbox in inboxes:
            target = {"name": inbox.name, "url": inbox.url, "secret": inbox.secret, "select": "kind=alias"}
            client.request("POST", "/v1/-/targets", json=target)
    within(lambda: sorted(cluster.shares().values()) == [TARGETS], "all at the first")
    frozen, killed = cluster.add(), cluster.add()
    within(lambda: sorted(cluster.shares().values()) == [3, 3, 3], "shared out")

    writer = Writer(one, inboxes)
    try:
        count = progress.arrivals + 50 * TARGETS
        progress.until(lambda: progress.arrivals >= count, "deliveries come to a standstill")
        frozen.process.send_signal(signal.SIGSTOP)
        killed.kill()
        began = time.monotonic()
        # What is written from now on reaches the targets of both once their leases have ended.
        marked = {f"after-{number}": "x" for number in range(5)}
        with one.client() as client:
            send(client, marked)
        names = {f"alias/default/{name}" for name in marked}
        within(lambda: all(names <= {subject for subject, _ in inbox.arrived()} for inbox in inboxes), "taken over")
        assert time.monotonic() - began < TAKEN_OVER
        assert sorted(cluster.shares().values()) == [TARGETS]
        frozen.process.send_signal(signal.SIGCONT)
        within(lambda: sorted(cluster.shares().values()) == [4, 5], "shared again")
    finally:
        writer.end()
    arrived_everywhere(one, inboxes)
    for inbox in inboxes:
        heard = list(inbox.heard)
        assert all(each.verified for each in heard)
        ids: dict[tuple[str, str], set[str]] = {}
        for each in heard:
            ids.setdefault((each.subject, each.sequence), set()).add(each.id)
        assert [key for key, found in ids.items() if len(found) > 1] == []
        # A receiver that discards what is late ends at the newest of each record.
        newest: dict[str, str] = {}
        for each in heard:
            if not each.late:
                assert each.sequence >= newest.get(each.subject, ""), each
                newest[each.subject] = each.sequence
        repeats = sum(each.state is State.REPEATED for each in heard)
        assert repeats <= 4, "at most what two daemons had in flight to this target"
