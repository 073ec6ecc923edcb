"""Two linked registries: how soon a change is at the other, how many documents a second, what a partition and a wiped
node cost, and what an idle link does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from bench.figures import Line, percentile
from bench.machine import HOST, NotHere, say
from bench.ours import PLURAL, Daemon, daemon, document, name_of, value

PART = "Two registries"
POUCHDB_DOCS = 751.0
"""Of pouchdb-server, not of this run: as measured on this sort of machine, continuous pull both ways."""
_PATIENCE = 300.0
_BATCH = 2000
_PER_SECOND = 200


def measure(folder: Path, *, quick: bool) -> list[Line]:
    """All of it, one after the other, each with registries of its own."""
    for name in ("latency", "throughput", "partition", "wiped", "idle"):
        (folder / name).mkdir()
    return [
        *latency(folder / "latency", changes=400 if quick else 4000),
        *throughput(folder / "throughput", count=5_000 if quick else 50_000),
        *partition(folder / "partition", edits=1_000 if quick else 10_000),
        *wiped(folder / "wiped", count=10_000 if quick else 100_000),
        *idle(folder / "idle", seconds=30.0 if quick else 100.0),
    ]


# --- registries -----------------------------------------------------------------------------------------------------


def invite(here: Daemon, port: int | None = None) -> str:
    body = {"address": f"http://{HOST}:{port or here.port}", "name": "other"}
    return str(here.client.request("POST", "/v1/-/peers/invitations", json=body).json()["line"])


def join(there: Daemon, line: str) -> None:
    there.client.request("POST", "/v1/-/peers", json={"line": line, "name": "other"})


def say_to(each: Daemon, verb: str) -> None:
    each.client.request("POST", f"/v1/-/peers/other/{verb}", json={})


def state(each: Daemon) -> dict[str, Any]:
    return dict(each.client.request("GET", "/v1/-/peers").json())


def until(condition: Callable[[], Any], what: str) -> float:
    """Seconds until it holds, looked at ten times a second."""
    began = time.perf_counter()
    while time.perf_counter() - began < _PATIENCE:
        if condition():
            return time.perf_counter() - began
        time.sleep(0.1)
    raise NotHere(f"never: {what}")


def same(here: Daemon, there: Daemon) -> bool:
    one, other = state(here), state(there)
    return bool(one["converged"] and other["converged"] and one["root"] == other["root"])


@contextlib.contextmanager
def two(folder: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons that are linked."""
    state_home = str(folder / "state")
    with (
        daemon(folder / "here", XDG_STATE_HOME=state_home) as here,
        daemon(folder / "there", XDG_STATE_HOME=state_home) as there,
    ):
        join(there, invite(here))
        until(lambda: same(here, there), "the link")
        yield here, there


def write(each: Daemon, first: int, count: int, *, mark: int = 0) -> None:
    """Records `first` to `first + count`, a batch at a time; `mark` makes their values others."""
    for start in range(first, first + count, _BATCH):
        numbers = range(start, min(start + _BATCH, first + count))
        operations = [{"op": "put", **document(name_of(number), number + mark)} for number in numbers]
        each.client.request("POST", "/v1/batch", json={"operations": operations})


def count_of(each: Daemon) -> int:
    return int(each.client.request("GET", "/v1/-/status").json()["kinds"].get("setting", 0))


# --- measurements ---------------------------------------------------------------------------------------------------


def latency(folder: Path, *, changes: int) -> list[Line]:
    """From the answer to a put here to the watch of a reader there, at 200 a second."""
    with two(folder) as (here, there):
        arrived: dict[int, float] = {}
        reader = threading.Thread(target=_watch, args=(there, changes, arrived), daemon=True)
        reader.start()
        time.sleep(1.0)
        acknowledged: dict[int, float] = {}
        began = time.perf_counter()
        for number in range(changes):
            time.sleep(max(0.0, began + number / _PER_SECOND - time.perf_counter()))
            body = {"spec": {"value": value(number)}}
            here.client.request("PUT", f"/v1/default/{PLURAL}/{name_of(number % 1000)}", json=body)
            acknowledged[number] = time.perf_counter()
        rate = changes / (time.perf_counter() - began)
        reader.join(30)
    took = [max(0.0, arrived[number] - at) * 1000 for number, at in acknowledged.items() if number in arrived]
    merged = changes - len(took)
    note = f"at {rate:.0f}/s; {merged} of {changes} were replaced by a newer one before they were sent"
    limits = ((0.5, "p50", 10.0), (0.99, "p99", 30.0))
    return [
        Line(
            part=PART, what=f"commit -> applied there and told, {name}", ours=percentile(took, share), unit="ms",
            beside="asked", theirs=limit, bar=1.0, less_is_better=True, note=note if share == 0.5 else "",
        )
        for share, name, limit in limits
    ]  # fmt: skip


def _watch(there: Daemon, changes: int, arrived: dict[int, float]) -> None:
    with socket.create_connection((HOST, there.port)) as sock:
        sock.sendall(
            f"GET /v1/-/watch?from=now&kind=setting HTTP/1.1\r\nHost: {HOST}:{there.port}\r\n"
            f"Authorization: Bearer {there.token}\r\n\r\n".encode()
        )
        rest = b""
        while changes - 1 not in arrived and (data := sock.recv(1 << 20)):
            now = time.perf_counter()
            rest += data
            *parts, rest = rest.split(b"mark:")
            for each in (*parts[1:], rest[:8] if len(rest) >= 8 else b""):
                if each[:8].isdigit():
                    arrived.setdefault(int(each[:8]), now)
            rest = b"mark:" + rest


def throughput(folder: Path, *, count: int) -> list[Line]:
    """Documents that wait here, when the link comes back."""
    with two(folder) as (here, there):
        say_to(here, "pause")
        write(here, 0, count)
        say(f"replicate: {count} documents wait")
        say_to(here, "resume")
        until(lambda: count_of(there) > 0, "the first document")
        began, first = time.perf_counter(), count_of(there)
        until(lambda: count_of(there) == count, "all documents")
        rate = (count - first) / (time.perf_counter() - began)
    return [
        Line(
            part=PART, what=f"documents of 500 bytes a second, {count:,} of them", ours=rate, unit="/s",
            beside="pouchdb-server, NOT of this run", theirs=POUCHDB_DOCS, bar=10.0,
        )
    ]  # fmt: skip


def partition(folder: Path, *, edits: int) -> list[Line]:
    """Edits on both sides while there is no link, half of them of the same records; then until both are the same."""
    with two(folder) as (here, there):
        write(here, 0, edits)
        until(lambda: count_of(there) == edits and same(here, there), "the records")
        say_to(here, "pause")
        write(here, 0, edits, mark=1_000_000)
        write(there, edits // 2, edits, mark=2_000_000)
        say_to(here, "resume")
        took = until(lambda: count_of(here) == count_of(there) == edits + edits // 2 and same(here, there), "healed")
        conflicts = state(here)["items"][0]["conflicts"]
    return [
        Line(
            part=PART, what=f"{edits:,} + {edits:,} edits healed, the next try included", ours=took, unit="s",
            beside="asked", theirs=3.0, bar=1.0, less_is_better=True,
            note=f"{min(conflicts, 1000)}{'+' if conflicts >= 1000 else ''} conflicts listed",
        )
    ]  # fmt: skip


def wiped(folder: Path, *, count: int) -> list[Line]:
    """A new node that gets everything."""
    with (
        daemon(folder / "here", XDG_STATE_HOME=str(folder / "state")) as here,
        daemon(folder / "there", XDG_STATE_HOME=str(folder / "state")) as there,
    ):
        write(here, 0, count)
        line = invite(here)
        say(f"replicate: {count} records wait for a wiped node")
        began = time.perf_counter()
        join(there, line)
        until(lambda: count_of(there) == count, "all records")
        took = time.perf_counter() - began
        until(lambda: same(here, there), "the same root")
        proved = time.perf_counter() - began
    return [
        Line(
            part=PART, what=f"a wiped node has {count:,} records back", ours=took, unit="s", beside="asked",
            theirs=15.0, bar=1.0, less_is_better=True, note=f"equal roots after {proved:.1f} s",
        )
    ]  # fmt: skip


def idle(folder: Path, *, seconds: float) -> list[Line]:
    """What goes over the wire when nothing changes, HTTP included."""
    with (
        daemon(folder / "here", XDG_STATE_HOME=str(folder / "state")) as here,
        daemon(folder / "there", XDG_STATE_HOME=str(folder / "state")) as there,
        Counting(here.port) as wire,
    ):
        join(there, invite(here, wire.port))
        until(lambda: same(here, there), "the link")
        time.sleep(3.0)
        frames, before = state(here)["items"][0]["frames"], wire.count
        time.sleep(seconds)
        rate = (wire.count - before) / seconds
        sent = sum(state(here)["items"][0]["frames"]) - sum(frames)
    return [
        Line(
            part=PART, what="an idle link", ours=rate, unit="bytes/s", beside="asked", theirs=200.0, bar=1.0,
            less_is_better=True, note=f"{sent} frames in {seconds:.0f} s",
        )
    ]  # fmt: skip


class Counting:
    """A relay to a port of this machine, which counts."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self._target))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.count += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
