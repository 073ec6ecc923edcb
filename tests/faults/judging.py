"""What must hold after any number of kills. `violations` says in words what does not; empty is what everybody wants."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import orjson

from universal_registry.client.listen import Heard, State
from universal_registry.environment import load_settings
from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.chain import GENESIS, verify
from universal_registry.log.change import Change, Op
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.record import Record
from universal_registry.stores import open_stores

KIND, NAMESPACE = "alias", "default"
MOST_SHOWN = 5


class Write(NamedTuple):
    """What one request asked for: name -> command. All of it or nothing."""

    commands: dict[str, str]
    revision: int = 0
    """0: no answer came, so it may or may not have been done."""
    cursor: str = ""


class Evidence(NamedTuple):
    """What the outside saw. `heard`: per receiver, in order. `kills`: how many landed while deliveries could be under
    way. `in_flight`: deliveries under way at once to one target."""

    acknowledged: list[Write]
    unanswered: list[Write]
    heard: dict[str, list[Heard]]
    kills: int
    in_flight: int


class Kept(NamedTuple):
    """What the stores hold, read after the daemon has ended."""

    lines: list[Change]
    records: dict[str, Record]
    rows: dict[str, int]
    damage: list[str]


def violations(environ: Mapping[str, str], evidence: Evidence) -> list[str]:
    """Everything that was promised and is not so. `environ`: what the daemon was run with, which says where it kept
    things, and on which engine."""
    kept = asyncio.run(_read(load_settings(environ=environ)))
    found = [
        *kept.damage,
        *_the_chain(kept.lines),
        *_acknowledged_writes(kept, evidence.acknowledged),
        *_whole_or_not_at_all(kept.lines, evidence),
        *_nothing_else(kept.lines, evidence),
        *_records(kept),
        *(f"{count} deliveries are left behind as {state}" for state, count in kept.rows.items()),
    ]
    for name, heard in evidence.heard.items():
        found += [f"{name}: {each}" for each in _deliveries(kept, heard, evidence)]
    return found


# --- reading the stores -----------------------------------------------------------------------------------------------


async def _read(settings: Settings) -> Kept:
    async with AsyncExitStack() as stack:
        stores = await open_stores(settings, load_catalogue(), SystemWorld(), stack, read_only=True)
        lines: list[Change] = []
        while more := await stores.registry.changes(lines[-1].revision if lines else 0, 1000):
            lines += more
        names = {line.name for line in lines if _is_ours(line)}
        found = [
            record for name in names for record in await stores.registry.find(name, NAMESPACE) if record.kind == KIND
        ]
        rows = Counter(str(row.state) for row in await stores.lanes.deliveries(limit=len(lines) * 10))
    damage = [] if settings.database else _damaged_files(Places(settings.home))
    return Kept(lines, {record.name: record for record in found}, rows, damage)


def _damaged_files(places: Places) -> list[str]:
    return [
        f"{path.name}: {word}"
        for path in (places.registry_db, places.propagation_db)
        if (word := _query(path, "PRAGMA integrity_check")[0][0]) != "ok"
    ]


def _query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def _is_ours(line: Change) -> bool:
    return (line.kind, line.namespace) == (KIND, NAMESPACE)


def _command(line: Change) -> str:
    return str(orjson.loads(line.body or b"{}")["spec"]["command"])


# --- the log and the records ------------------------------------------------------------------------------------------


def _the_chain(lines: list[Change]) -> list[str]:
    """Gapless, in order, and unaltered."""
    try:
        verify(GENESIS, lines, 1)
    except Corrupt as error:
        return [f"the log: {error}"]
    return []


def _acknowledged_writes(kept: Kept, acknowledged: list[Write]) -> list[str]:
    """Each is in the log, at exactly its revision, and its cursor is of this history."""
    at = {(line.revision, line.name): line for line in kept.lines if _is_ours(line)}
    hashes = {line.revision: line.hash[:4].hex() for line in kept.lines}
    lost, moved = [], []
    for write in acknowledged:
        for name, command in write.commands.items():
            line = at.get((write.revision, name))
            if line is None or _command(line) != command:
                lost.append(f"{name} = {command} of revision {write.revision}")
        if hashes.get(write.revision) != write.cursor.rpartition(".")[2]:
            moved.append(write.cursor)
    return [*_told("acknowledged writes are lost", lost), *_told("cursors are of no history", moved)]


def _whole_or_not_at_all(lines: list[Change], evidence: Evidence) -> list[str]:
    """A request is one revision, or none of it is there, whether it was answered or not."""
    made: dict[tuple[str, str], set[int]] = defaultdict(set)
    for line in filter(_is_ours, lines):
        made[line.name, _command(line)].add(line.revision)
    torn = []
    for write in (*evidence.acknowledged, *evidence.unanswered):
        revisions = [frozenset(made.get(item, ())) for item in write.commands.items()]
        if len(set(revisions)) > 1 or len(revisions[0]) > 1:
            torn.append(str(list(write.commands)[:3]))
    return _told("requests were done in part, or twice", torn)


def _nothing_else(lines: list[Change], evidence: Evidence) -> list[str]:
    asked = {item for write in (*evidence.acknowledged, *evidence.unanswered) for item in write.commands.items()}
    other = [
        f"{line.name} = {_command(line)}"
        for line in lines
        if _is_ours(line) and (line.name, _command(line)) not in asked
    ]
    return _told("lines were asked for by nobody", other)


def _records(kept: Kept) -> list[str]:
    """Each record is what its newest line says."""
    newest = {line.name: line for line in kept.lines if _is_ours(line) and line.op is Op.PUT}
    wrong = [
        name
        for name, line in newest.items()
        if (record := kept.records.get(name)) is None
        or (record.revision, record.spec["command"]) != (line.revision, _command(line))
    ]
    return _told("records are not as their newest line says", wrong)


# --- deliveries -------------------------------------------------------------------------------------------------------


def _deliveries(kept: Kept, heard: Sequence[Heard], evidence: Evidence) -> Iterator[str]:
    """Each line arrived, and none that is not in the log; those of a record in order; repeats are few, under one id."""
    sent = {(line.name, _sequence(line)): _command(line) for line in kept.lines if _is_ours(line)}
    taken = [each for each in heard if each.state in (State.RECEIVED, State.REPEATED)]
    got = {(_name(each), each.sequence): each.data["record"]["spec"]["command"] for each in taken}
    yield from _told("deliveries are lost", [f"{name} of {sequence}" for name, sequence in sent.keys() - got.keys()])
    yield from _told("lines arrived that the log does not hold", [str(item) for item in got.items() - sent.items()])
    yield from _told("records went backwards", [each.subject for each in taken if each.late])
    newest, reached = dict(sorted(sent)), dict(sorted(got))
    behind = [name for name, sequence in newest.items() if reached.get(name) != sequence]
    yield from _told("records are not at their newest", behind)
    yield from _told("POSTs were not authentic", [each.reason for each in heard if each.verified is False])
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in taken:
        ids[each.subject, each.sequence].add(each.id)
    yield from _told("deliveries came under several ids", [str(key) for key, found in ids.items() if len(found) > 1])
    repeats = Counter(each.state for each in taken)[State.REPEATED]
    if repeats > evidence.kills * evidence.in_flight:
        yield f"{repeats} repeats after {evidence.kills} kills, with {evidence.in_flight} in flight"


def _name(heard: Heard) -> str:
    return heard.subject.removeprefix(f"{KIND}/{NAMESPACE}/")


def _sequence(line: Change) -> str:
    return f"{line.revision:016d}.{line.seq:06d}"


def _told(what: str, cases: list[str]) -> list[str]:
    return [f"{len(cases)} {what}: {sorted(cases)[:MOST_SHOWN]}"] if cases else []
