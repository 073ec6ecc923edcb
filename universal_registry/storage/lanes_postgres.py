"""The propagation store on PostgreSQL: lanes, their rows, attempts and sessions (ports of propagation/ports.py)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import orjson

from universal_registry.kernel.errors import ReadOnlyStore
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import RetrySettings
from universal_registry.kernel.world import World
from universal_registry.log.audit import Deed
from universal_registry.propagation.lanes.lane import (
    Arrival,
    Attempt,
    Counters,
    Delivery,
    Lane,
    Position,
    Session,
    Settlements,
    Transition,
)
from universal_registry.propagation.lanes.lane_command import Command
from universal_registry.propagation.ports import Birth, Claimed, Depth, Looked, Unsent
from universal_registry.storage.audit_postgres import append
from universal_registry.storage.lane_rows import (
    arrival_from,
    arrival_row,
    attempt_from,
    attempt_row,
    command_from,
    command_row,
    delivery_from,
    delivery_row,
    lane_from,
    lane_row,
    session_from,
    session_row,
    session_target_rows,
    text,
    transition_from,
)
from universal_registry.storage.lane_rules import (
    CRASH_LIMIT,
    NOTHING,
    birth_of,
    birth_text,
    check_lanes_given,
    delivery_query,
    retries,
    undone_query,
)
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.sqlfiles import load_queries

_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


# In the order of the functions of lane_rows.
_LANE = _columns(
    """lane_id target_uid target_namespace target_name transport owner generation incarnation
    position_revision position_seq hash8 backfill_route backfill_upto backfill_at breaker failures trips open_until
    pause_until paused held delivered last_success_at last_failure_at last_error guard ordering"""
)
_DELIVERY = _columns(
    """delivery_id lane_id session_id route_uid op kind namespace name revision seq state attempts crashes next_at
    reason created_at updated_at held waits_for replay_of"""
)
_ATTEMPT = _columns("delivery_id lane_id number at outcome status milliseconds reason")
_SESSION = _columns("session_id mode source standing state revision created_at last_activity reason deadline")
_SESSION_TARGET = _columns("session_id target_namespace target_name place")
_REMOVED = _columns("lane_id delivery_id")
_OBEYED = _columns("lane_id number")


class PgLanes:
    """LaneStore and LaneQueries over the schema "propagation".

    `apply` and `claim` are its only writes, one durable commit and one round trip each. Several daemons may share the
    store: each holds its lanes by its lease, and what it writes about a lane that another has taken is left out. Times
    are kept to the millisecond; a wait is rounded up.
    """

    def __init__(self, database: PgDatabase, world: World, *, retry: RetrySettings | None = None) -> None:
        self._db = database
        self._sql = load_queries("postgres/propagation.sql")
        self._max_retries = retries(retry or RetrySettings())
        self._owner: str | None = None
        self._ledger = _Ledger(world.new_id())
        self._applying = asyncio.Lock()

    # --- LaneStore ----------------------------------------------------------------------------------------------------

    async def begin(self, revision: int, now: datetime) -> bool:
        """Remember the birth of a store that is new."""
        return bool(await self._db.fetch(self._sql["begin"], birth_text(Birth(revision, now))))

    async def birth(self) -> Birth | None:
        """What was remembered of it."""
        rows = await self._db.fetch(self._sql["birth"])
        return birth_of(rows[0][0]) if rows else None

    async def lanes(self) -> Sequence[Lane]:
        """Every lane, in the order in which they were made."""
        return [lane_from(row) for row in await self._db.fetch(self._sql["lanes"])]

    async def claim(
        self, owner: str, now: datetime, lease_until: datetime, *, leaving: Collection[str] = (), holding: int = -1
    ) -> Claimed:
        """Renew the lease of `owner`, give up the lanes `leaving`, and take a fair share of those that nobody holds.

        One row is written as long as nothing changes. What another owner left SENDING is PENDING again, or dead at its
        third crash; those count as `failed`. Safe to repeat.
        """
        self._check_writable()
        lease = lease_until - now
        recent, latest = lease_until - lease / 3, lease_until + lease
        who = (owner, *map(text, (now, lease_until, recent, latest)), list(leaving), holding)
        ((share, changed),) = await self._db.fetch(self._sql["claim"], *who, CRASH_LIMIT, self._max_retries)
        self._owner = owner
        rows = await self._db.fetch(self._sql["lanes_of"], owner) if changed else ()
        return Claimed(share=share, lanes=[lane_from(row) for row in rows] if changed else None)

    async def apply(self, settlements: Settlements) -> None:
        """All of it in one durable commit, except lanes whose stored owner or generation is another, with their rows.

        Lanes are dropped first, so that one which is also given is replaced. Sessions, counters and deeds
        are of no lane and always go in. Raises Invalid, with nothing applied, for a row or an attempt whose lane is not
        among `settlements.lanes`: it could not be fenced. After StorageUnavailable it may or may not be stored: give it
        again, with whatever has come to it since; no attempt and no count is added twice.
        """
        if settlements == NOTHING:
            return
        check_lanes_given(settlements)
        self._check_writable()
        async with self._applying:
            document = self._ledger.document(settlements)
            try:
                await self._settle(document, settlements.arrivals, settlements.deeds)
            except BaseException:  # a refusal too: the store knows what it took, whatever happened to the answer
                self._ledger.in_doubt(settlements)
                raise
            self._ledger.stored()

    async def _settle(self, document: str, arrivals: Sequence[Arrival], deeds: Sequence[Deed]) -> None:
        if not arrivals and not deeds:
            await self._db.fetch(self._sql["settle"], document)
            return
        async with self._db.transaction() as connection:
            await connection.fetch(self._sql["settle"], document)
            if arrivals:  # all daemons in the same order, so that none waits for another that waits for it
                rows = sorted(map(arrival_row, arrivals), key=lambda row: row[3:])
                await connection.executemany(self._sql["put_arrival"], rows)
            if deeds:
                await append(connection, "propagation", deeds)

    async def due(self, lane_id: str, now: datetime, limit: int, *, untried: bool = False) -> Sequence[Delivery]:
        """At most `limit` rows that may be tried now, in order of (revision, seq); never two of one record."""
        if untried:
            return [delivery_from(row) for row in await self._db.fetch(self._sql["due_untried"], lane_id, limit)]
        rows = await self._db.fetch(self._sql["due"], lane_id, text(now), limit)
        return sorted(map(delivery_from, rows), key=lambda delivery: delivery.position)[:limit]

    async def next_due(self) -> datetime | None:
        """The earliest next_at of the WAITING rows that no earlier row of their record stands before.

        After a claim: of the lanes claimed, since the rows of others are theirs to try.
        """
        ((first,),) = await self._db.fetch(self._sql["next_due"], self._owner)
        return None if first is None else datetime.fromisoformat(first)

    async def blocked_keys(self, lane_id: str, keys: Collection[Key]) -> set[Key]:
        if not keys:
            return set()
        kinds, namespaces, names = (list(column) for column in zip(*keys, strict=True))
        rows = await self._db.fetch(self._sql["blocked_keys"], lane_id, kinds, namespaces, names)
        return {Key(*row) for row in rows}

    async def depth(self) -> Depth:
        """The totals, from the counts that each lane keeps: O(lanes), whatever waits."""
        ((queue_depth, webhooks_pending, waiting, dead, totals),) = await self._db.fetch(self._sql["depth"])
        return Depth(
            queue_depth=queue_depth,
            webhooks_pending=webhooks_pending,
            waiting=waiting,
            dead=dead,
            counters=Counters(**orjson.loads(totals)),
        )

    async def oldest(self) -> Mapping[str, datetime]:
        """Lane id -> when its oldest delivery that has not ended was planned; only lanes that have one."""
        rows = await self._db.fetch(self._sql["oldest"])
        return {lane_id: datetime.fromisoformat(at) for lane_id, at in rows if at is not None}

    async def unsent(self) -> Mapping[str, Unsent]:
        """The lowest revisions that lanes still need."""
        return {row[0]: Unsent(row[1], row[2]) for row in await self._db.fetch(self._sql["unsent"])}

    async def rebase(self, now: datetime) -> None:
        """The clock has gone back to `now`: no wait of our lanes is longer than it was to be, from now."""
        if self._owner is not None:
            await self._db.fetch(self._sql["rebase"], self._owner, text(now))

    async def hasten(self, lane_id: str, now: datetime) -> None:
        """What waits in the lane, if it is ours, for a later moment is due now."""
        if self._owner is not None:
            await self._db.fetch(self._sql["hasten"], lane_id, self._owner, text(now))

    # --- LaneCommands -------------------------------------------------------------------------------------------------

    async def give(self, command: Command) -> None:
        """Store a command for its lane, durably."""
        self._check_writable()
        await self._db.fetch(self._sql["give_command"], *command_row(command))

    async def commands(self) -> Sequence[Command]:
        """What is still to be done, in order."""
        return [command_from(row) for row in await self._db.fetch(self._sql["commands"])]

    # --- LaneQueries --------------------------------------------------------------------------------------------------

    async def deliveries(
        self,
        *,
        lane_id: str | None = None,
        key: Key | None = None,
        session_id: str | None = None,
        states: Collection[str] = (),
        since: datetime | None = None,
        limit: int = 1000,
    ) -> Sequence[Delivery]:
        """Rows for which all that is given holds, by lane and in each in order; at most `limit`."""
        query = delivery_query(lane_id, key, session_id, states)
        wanted = [str(state) for state in states] or None
        where = (lane_id, session_id, wanted, limit, since and text(since))
        rows = await self._db.fetch(self._sql[query], *where, *(key or ()))
        return [delivery_from(row) for row in rows]

    async def delivery(self, delivery_id: str) -> Delivery | None:
        """The row of one delivery, if it has one."""
        rows = await self._db.fetch(self._sql["delivery"], delivery_id)
        return delivery_from(rows[0]) if rows else None

    async def missed_event(self, lane_id: str, key: Key, before: Position) -> Position | None:
        """The newest event before a place that was given up or cancelled."""
        where = (lane_id, key.name, key.kind, key.namespace, before.revision, before.seq)
        rows = await self._db.fetch(self._sql["missed_event"], *where)
        return Position(*rows[0]) if rows else None

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        """What was tried for one delivery without success, in order; also after it has arrived."""
        return [attempt_from(row) for row in await self._db.fetch(self._sql["attempts"], delivery_id)]

    async def sessions(self, session_id: str | None = None) -> Sequence[Session]:
        """All sessions, oldest first, or the one."""
        if session_id is not None:
            rows = await self._db.fetch(self._sql["session"], session_id)
        else:
            rows = await self._db.fetch(self._sql["sessions"])
        return [session_from(row) for row in rows]

    # --- SessionStore -------------------------------------------------------------------------------------------------

    async def undone(
        self, *, session_id: str | None = None, lane_id: str | None = None, after: Delivery | None = None, limit: int
    ) -> Sequence[Delivery]:
        """A page of live rows that nobody has under way."""
        query, what = undone_query(session_id, lane_id, after)
        return [delivery_from(row) for row in await self._db.fetch(self._sql[query], *what.values(), limit)]

    async def release(self, after: Position, limit: int, now: datetime) -> Sequence[Looked]:
        """One round trip."""
        where = (self._owner, after.revision, after.seq, limit, text(now))
        rows = await self._db.fetch(self._sql["release"], *where)
        return [Looked(row[0], Position(row[1], row[2]), bool(row[3])) for row in rows]

    async def open_sessions(self, after: str, limit: int) -> Sequence[tuple[Session, Sequence[str]]]:
        rows = await self._db.fetch(self._sql["open_sessions"], after, limit)
        return [(session_from(row), tuple(orjson.loads(row[12]))) for row in rows]

    async def arrivals(self, session_id: str) -> Sequence[Arrival]:
        return [arrival_from(row) for row in await self._db.fetch(self._sql["arrivals"], session_id)]

    async def transitions(self, session_id: str) -> Sequence[Transition]:
        return [transition_from(row) for row in await self._db.fetch(self._sql["transitions"], session_id)]

    def _check_writable(self) -> None:
        if self._db.read_only:
            raise ReadOnlyStore(f"{self._db.place} is open for reading only")


class _Ledger:
    """Numbers the settlements of one daemon and remembers what those without an answer held.

    Attempts and counts carry the number of the first settlement that held them; the store, which knows the last number
    that it took, adds only what is newer. So a repetition adds nothing twice, whether the first one arrived or not.
    """

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._number = 0
        self._since: dict[Attempt, int] = {}
        self._counted: list[tuple[int, str, int]] = []

    def document(self, settlements: Settlements) -> str:
        """What the function `settle` takes, with the next number. Of what is given twice the last word counts."""
        self._number += 1
        attempts = settlements.attempts
        rows = {row.delivery_id: row for row in settlements.upserts}
        lanes = {lane.lane_id: lane for lane in settlements.lanes}
        sessions = {session.session_id: session for session in settlements.sessions}
        targets = [row for session in sessions.values() for row in session_target_rows(session)]
        document = {
            "writer": self._writer,
            "number": self._number,
            "lanes": _named(_LANE, map(lane_row, lanes.values())),
            "dropped": settlements.dropped_lanes,
            "rows": _named(_DELIVERY, map(delivery_row, rows.values())),
            "removed": _named(_REMOVED, settlements.removed),
            "attempts": [
                {"since": self._since.get(each, self._number), **named}
                for each, named in zip(attempts, _named(_ATTEMPT, map(attempt_row, attempts)), strict=True)
            ],
            "sessions": _named(_SESSION, map(session_row, sessions.values())),
            "targets": _named(_SESSION_TARGET, targets),
            "obeyed": _named(_OBEYED, settlements.obeyed),
            "counters": [
                {"since": since, "name": name, "added": added}
                for since, name, added in (*self._counted, *self._increments(settlements.counters))
            ],
        }
        # PostgreSQL's text holds no NUL; one in the far side's words must not stop all that the tick decided.
        return _NUL.sub(r"\1\\ufffd", orjson.dumps(document).decode())

    def _increments(self, counters: Counters) -> list[tuple[int, str, int]]:
        """What has come to the counters since the last settlement in doubt."""
        known: dict[str, int] = {}
        for _, name, added in self._counted:
            known[name] = known.get(name, 0) + added
        more = {name: value - known.get(name, 0) for name, value in msgspec.structs.asdict(counters).items()}
        return [(self._number, name, added) for name, added in more.items() if added]

    def in_doubt(self, settlements: Settlements) -> None:
        """The settlement last numbered may or may not have been stored; the next one holds all of it again."""
        self._counted += self._increments(settlements.counters)
        for attempt in settlements.attempts:
            self._since.setdefault(attempt, self._number)

    def stored(self) -> None:
        """The settlement last numbered was stored, and with it all before."""
        self._since.clear()
        self._counted.clear()


def _named(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in rows]
