"""A real daemon under load, killed (-9) again and again, and judged in the end.

Kills follow the work (after so many answers, after so many arrivals), drawn from a seed; some fall into a start.
A kill cannot show what a power cut would (`PRAGMA synchronous=OFF` passes here: the kernel keeps the pages).
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pgserver
from judging import KIND, Evidence, violations
from pressure import (
    IN_FLIGHT,
    PATIENCE,
    UREG,
    Daemon,
    Inbox,
    PlainSql,
    Progress,
    Writers,
    asking_postgres,
    asking_sqlite,
    is_at_rest,
    lines_in,
    slow,
    wait_for,
)

from universal_registry.client.http import find_daemon
from universal_registry.client.listen import State, flaky

BROKEN = [sys.executable, str(Path(__file__).with_name("child_broken.py"))]
LEAST_HEARD = 8 * IN_FLIGHT


class Figures(NamedTuple):
    """What a run came to. Times in seconds; `violations` is what did not hold."""

    seed: int
    kills: int
    kills_in_a_start: int
    acknowledged: int
    unanswered: int
    arrived: int
    repeated: int
    turned_away: int
    restart_median: float
    restart_longest: float
    sql_reads: int
    seconds: float
    violations: list[str]


class Trial:
    """One run of it in a folder of the caller's, on SQLite, or in a new database of the server."""

    def __init__(self, folder: Path, seed: int, command: Sequence[str], server: pgserver.Server | None = None) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.progress = Progress()
        database = server.database(f"kills_{seed}").name if server else ""
        self.daemon = Daemon(folder / "home", command, **(server.environment(database) if server else {}))
        self.asking = asking_postgres(server, database) if server else asking_sqlite(self.daemon.places)
        self.inboxes = [
            Inbox("steady", self.progress),
            Inbox("flaky", self.progress, behaviour=flaky(0.2)),
            Inbox("slow", self.progress, behaviour=slow(0.003)),
        ]
        self.restarts: list[float] = []
        self.in_a_start = 0

    def run(self, kills: int) -> Figures:
        """Kill it so often, let it finish, and judge."""
        began = time.monotonic()
        try:
            self.daemon.start()
            self._targets()
            writers = Writers(str(find_daemon(self.daemon.places)), self.progress, self.inboxes)
            sql = PlainSql(self.asking)
            try:
                for _ in range(kills):
                    self._kill_once()
            finally:
                writers.end()
                sql.end()
            self._until_quiet()
            code = self.daemon.stop()
        finally:
            self.daemon.process.kill()
            self.daemon.process.wait(PATIENCE)
            for inbox in self.inboxes:
                inbox.close()
        found = [*writers.trouble, *sql.trouble, *([f"it ended with {code}"] if code else [])]
        heard = {inbox.name: inbox.heard for inbox in self.inboxes}
        killed = kills + self.in_a_start
        evidence = Evidence(writers.acknowledged, writers.unanswered, heard, killed, IN_FLIGHT)
        found += violations(self.daemon.environ, evidence)
        return self._figures(evidence, sql.reads, time.monotonic() - began, found)

    def _targets(self) -> None:
        with self.daemon.client() as client:
            for inbox in self.inboxes:
                target = {"name": inbox.name, "url": inbox.url, "secret": inbox.secret, "select": f"kind={KIND}"}
                client.request("POST", "/v1/-/targets", json=target)

    def _kill_once(self) -> None:
        """Let it work for a while, kill it in the middle of that, start it again; now and then kill it as it starts.

        Each receiver gets something first: a delivery during which a daemon ends three times in a row is set aside, by
        design.
        """
        progress = self.progress
        wanted = {inbox: len(inbox.heard) + LEAST_HEARD for inbox in self.inboxes}
        progress.until(
            lambda: all(len(inbox.heard) >= count for inbox, count in wanted.items()), "a receiver gets nothing more"
        )
        if self.chance.random() < 0.5:
            answers = progress.answers + self.chance.randint(1, 150)
            progress.until(lambda: progress.answers >= answers, "writes come to a standstill")
        else:
            arrivals = progress.arrivals + self.chance.randint(1, 200)
            progress.until(lambda: progress.arrivals >= arrivals, "deliveries come to a standstill")
        self._after(self.chance.uniform(0, 0.01))
        if self.chance.random() < 0.2:
            self.daemon.kill()
            self.in_a_start += 1
            self.daemon.spawn()
            self._after(self.chance.uniform(0, 0.6))
        self.daemon.kill()
        self.restarts.append(self.daemon.start())

    def _after(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def _until_quiet(self) -> None:
        """Until every line has arrived everywhere, or nothing is left to be sent."""
        with self.daemon.client() as client:
            expected = lines_in(client)

            def is_quiet() -> bool:
                if all(inbox.arrived() >= expected for inbox in self.inboxes):
                    return True
                return all(is_at_rest(client) and not threading.Event().wait(0.2) for _ in range(3))

            wait_for(is_quiet, "quiet", seconds=30)
            wait_for(lambda: is_at_rest(client), "settled", seconds=30)

    def _figures(self, evidence: Evidence, reads: int, seconds: float, found: list[str]) -> Figures:
        return Figures(
            seed=self.seed,
            kills=evidence.kills,
            kills_in_a_start=self.in_a_start,
            acknowledged=len(evidence.acknowledged),
            unanswered=len(evidence.unanswered),
            arrived=sum(inbox.count(State.RECEIVED) for inbox in self.inboxes),
            repeated=sum(inbox.count(State.REPEATED) for inbox in self.inboxes),
            turned_away=sum(inbox.count(State.FAILED) for inbox in self.inboxes),
            restart_median=round(statistics.median(self.restarts), 3),
            restart_longest=round(max(self.restarts), 3),
            sql_reads=reads,
            seconds=round(seconds, 1),
            violations=found,
        )


def trial(
    folder: Path, *, kills: int, seed: int, broken: str | None = None, server: pgserver.Server | None = None
) -> Figures:
    """Kill a daemon so often under load; `broken`: which protection it is to do without (`child_broken.py`)."""
    changes = [*(["short-leases"] if server else []), *([broken] if broken else [])]
    return Trial(folder, seed, [*BROKEN, *changes] if changes else UREG, server).run(kills)
