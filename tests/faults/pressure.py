"""What a real daemon is put under: receivers, writers and a reader with plain SQL.

All but the daemon lives in the caller's process, so that what was acknowledged and what arrived outlives it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import orjson
import pgserver
from judging import KIND, NAMESPACE, Write

from universal_registry.client.http import Client, find_daemon
from universal_registry.client.listen import Behaviour, Heard, Receiver, State
from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.settings import Places
from universal_registry.kernel.world import SystemWorld, World
from universal_registry.security.signing import new_secret

ROOT = Path(__file__).resolve().parents[2]
UREG = [sys.executable, "-P", "-m", "universal_registry", "serve"]
PATIENCE = 60.0
IN_FLIGHT = 2
MOST_BEHIND = 300
BATCH = 20
COUNTERS = 5
QUERIES = (
    ("propagation", "SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry');"),
    ("propagation", "SELECT COUNT(*) FROM webhook_queue WHERE status='pending';"),
    ("registry", "SELECT COUNT(*) FROM aliases;"),
)
SETTINGS = {
    "REGISTRY_LISTEN": "127.0.0.1:0",
    "REGISTRY_MAX_IN_FLIGHT_PER_TARGET": str(IN_FLIGHT),
    # The default waits (1 s to 75 h, a minute of breaker) are too long for a test; the rules are the same.
    "REGISTRY_RETRY_BASE_DELAY_SECONDS": "0.02",
    "REGISTRY_RETRY_MAX_DELAY_SECONDS": "0.3",
    "REGISTRY_RETRY_MAX_RETRIES": "100",
    "REGISTRY_RETRY_CIRCUIT_BREAKER_TIMEOUT_SECONDS": "0.2",
    # A receiver that refuses three in ten spends its budget sooner or later; each retry then waits for this.
    "REGISTRY_RETRY_BUDGET_REFILL_SECONDS": "0.05",
}


class Daemon:
    """`ureg serve` in a home, as a child process. Its stderr goes to a file beside the home."""

    def __init__(self, home: Path, command: Sequence[str] = UREG, **settings: str) -> None:
        self.places = Places(home)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        said = {"PYTHONPATH": str(ROOT), "REGISTRY_HOME": str(home), **SETTINGS, **settings}
        self._said = home.with_name(home.name + ".stderr")
        self.command, self.environ = list(command), {**kept, **said}
        self.process: subprocess.Popen[bytes]

    def spawn(self) -> None:
        with self._said.open("ab") as said:
            self.process = subprocess.Popen(
                self.command, env=self.environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )

    def start(self) -> float:
        """Start it, and wait until it is ready: how long that took."""
        began = time.monotonic()
        self.spawn()
        wait_for(self.is_ready, f"ready: {self._said.read_text(errors='replace')[-2000:]}")
        return time.monotonic() - began

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.last_words()
        address = find_daemon(self.places)
        if address is None:
            return False
        with Client(address) as client:
            try:
                return client.request("GET", "/health/ready").status == 200
            except RegistryError:
                return False

    def client(self) -> Client:
        address = find_daemon(self.places)
        assert address is not None, self.last_words()
        return Client(address)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(PATIENCE) == -signal.SIGKILL, self.last_words()

    def stop(self) -> int:
        """End it in order: its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def last_words(self) -> list[str]:
        return self._said.read_text(errors="replace").splitlines()[-5:]


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Look until it holds. For what another process does, which nothing announces."""
    never = threading.Event()
    assert any(condition() or never.wait(0.005) for _ in range(int(seconds / 0.005))), f"it was never {what}"


class Progress:
    """What has happened so far, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.grown = threading.Condition()
        self.answers = 0
        self.arrivals = 0

    def until(self, condition: Callable[[], bool], what: str) -> None:
        with self.grown:
            assert self.grown.wait_for(condition, PATIENCE), what


class Inbox:
    """A receiver with a loop and a thread of its own. It outlives every daemon, and forgets nothing."""

    def __init__(
        self, name: str, progress: Progress, *, behaviour: Behaviour | None = None, world: World | None = None
    ) -> None:
        self.name = name
        self.heard: list[Heard] = []
        self.secret = new_secret(SystemWorld())
        self._progress = progress
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._receiver = Receiver(
            world=world or SystemWorld(), secrets=[self.secret], on_event=self._note, behaviour=behaviour
        )
        host, port = self._do(self._receiver.start("127.0.0.1", 0))
        self.url = f"http://{host}:{port}/{name}"

    def _note(self, heard: Heard) -> None:
        with self._progress.grown:
            self.heard.append(heard)
            self._progress.arrivals += heard.state is State.RECEIVED
            self._progress.grown.notify_all()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def arrived(self) -> set[tuple[str, str]]:
        return {(each.subject, each.sequence) for each in list(self.heard) if each.state is State.RECEIVED}

    def count(self, state: State) -> int:
        return sum(each.state is state for each in self.heard)

    def close(self) -> None:
        self._do(self._receiver.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class Writers:
    """Threads that write without end, whether the daemon lives or not, and note what was acknowledged.

    Two make records of new names, one changes a few records again and again, one sends batches of both.
    """

    def __init__(self, address: str, progress: Progress, inboxes: list[Inbox]) -> None:
        self.acknowledged: list[Write] = []
        self.unanswered: list[Write] = []
        self.trouble: list[str] = []
        self._progress, self._inboxes = progress, inboxes
        self._ending = threading.Event()
        plans = (self._new, self._new, self._same, self._batch)
        self._threads = [
            threading.Thread(target=self._write, args=(Client(address), who, plan)) for who, plan in enumerate(plans)
        ]
        for thread in self._threads:
            thread.start()

    def _new(self, who: int, number: int) -> dict[str, str]:
        return {f"new-{who}-{number}": f"new {who} {number}"}

    def _same(self, who: int, number: int) -> dict[str, str]:
        return {f"same-{number % COUNTERS}": f"same {who} {number}"}

    def _batch(self, who: int, number: int) -> dict[str, str]:
        half = BATCH // 2
        return {
            **{f"many-{who}-{number}-{each}": f"many {number} {each}" for each in range(half)},
            **{f"again-{each}": f"again {number} {each}" for each in range(half)},
        }

    def _write(self, client: Client, who: int, plan: Callable[[int, int], dict[str, str]]) -> None:
        with client:
            for number in itertools.count(1):
                with self._progress.grown:  # enough to do for the receivers, and not much more than they get done
                    self._progress.grown.wait_for(lambda: self._ending.is_set() or not self._is_far_ahead(), 0.5)
                if self._ending.is_set():
                    return
                self._one(client, plan(who, number))

    def _is_far_ahead(self) -> bool:
        return self._progress.answers - self._progress.arrivals // len(self._inboxes) > MOST_BEHIND

    def _one(self, client: Client, commands: dict[str, str]) -> None:
        try:
            answer = send(client, commands)
        except RegistryError as error:
            if not error.retryable:
                self.trouble.append(f"a write was refused: {error}")
            self.unanswered.append(Write(commands))
            self._ending.wait(0.02)  # it is being started again
            return
        with self._progress.grown:
            self.acknowledged.append(Write(commands, answer["revision"], answer["cursor"]))
            self._progress.answers += len(commands)
            self._progress.grown.notify_all()

    def end(self) -> None:
        self._ending.set()
        with self._progress.grown:
            self._progress.grown.notify_all()
        for thread in self._threads:
            thread.join(PATIENCE)


def send(client: Client, commands: dict[str, str]) -> dict[str, Any]:
    """One request that writes them all."""
    if len(commands) == 1:
        ((name, command),) = commands.items()
        reply = client.request("PUT", f"/v1/{NAMESPACE}/aliases/{name}", json={"spec": {"command": command}})
    else:
        operations = [
            {"op": "put", "kind": KIND, "name": name, "spec": {"command": command}}
            for name, command in commands.items()
        ]
        reply = client.request("POST", "/v1/batch", json={"operations": operations})
    answer: dict[str, Any] = reply.json()
    return answer


class PlainSql:
    """The engine's own client asks the seed's queries in a loop."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        """None of them is run where there is no such client."""
        self.reads = 0
        self.trouble: list[str] = []
        self._commands = commands
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read)
        if shutil.which(commands[0][0]) is not None:
            self._thread.start()

    def _read(self) -> None:
        for command in itertools.cycle(self._commands):
            if self._ending.wait(0.02):
                return
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
            busy = "locked" in done.stderr or "busy" in done.stderr
            self.reads += done.returncode == 0
            if not busy and (done.returncode, done.stderr, done.stdout.strip().isdigit()) != (0, "", True):
                self.trouble.append(f"{' '.join(command)}: {done.stderr or done.stdout}")

    def end(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)


def slow(seconds: float) -> Behaviour:
    """Takes everything, one after the other, each only after a while."""
    never = threading.Event()

    def behave(_msg_id: str, _attempt: int) -> int | None:
        never.wait(seconds)
        return None

    return behave


def lines_in(client: Client) -> set[tuple[str, str]]:
    """(subject, sequence) of each line of the log that goes to the receivers."""
    found: set[tuple[str, str]] = set()
    cursor = None
    while True:
        *lines, last = map(orjson.loads, client.request("GET", "/v1/changes", query={"after": cursor}).lines())
        if not lines:
            return found
        cursor = last["cursor"]
        found |= {
            (f"{KIND}/{NAMESPACE}/{line['name']}", f"{line['revision']:016d}.{line['seq']:06d}")
            for line in lines
            if (line["kind"], line["namespace"]) == (KIND, NAMESPACE)
        }


def is_at_rest(client: Client) -> bool:
    """Nothing is under way, and nothing is about to be."""
    status = client.request("GET", "/v1/-/status").json()
    return int(status["health"]["queue_depth"]) == 0


def asking_sqlite(places: Places) -> list[list[str]]:
    """The seed's queries as the seed gives them to `sqlite3`, and the same with -readonly."""
    files = {"propagation": places.propagation_db, "registry": places.registry_db}
    return [["sqlite3", *flags, str(files[store]), sql] for store, sql in QUERIES for flags in ([], ["-readonly"])]


def asking_postgres(server: pgserver.Server, database: str) -> list[list[str]]:
    """The same, by `psql`."""
    return [[*server.psql(database), "-c", sql.replace(" FROM ", f" FROM {store}.")] for store, sql in QUERIES]
