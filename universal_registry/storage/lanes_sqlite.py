"""The propagation store on SQLite: lanes, their rows, attempts and sessions (ports of propagation/ports.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec
import orjson

from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import (
    Arrival,
    Attempt,
    Counters,
    Delivery,
    DeliveryState,
    Lane,
    Position,
    Session,
    Settlements,
    Transition,
)
from universal_registry.propagation.lanes.lane_command import Command
from universal_registry.propagation.ports import Birth, Claimed, Depth, Looked, Unsent
from universal_registry.storage.audit_sqlite import append
from universal_registry.storage.database import Database
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
from universal_registry.storage.sqlfiles import load_queries

_MANY = 1000  # heads past their time from which walking them in order reads less than sorting them


class SqliteLanes:
    """LaneStore and LaneQueries over one database of the store "propagation".

    `apply` and `claim` are its only writes, one durable commit each. Reads see the last committed state: on the loop
    where an index answers, in a thread where a table may be walked. Times are kept to the millisecond; a wait is
    rounded up.
    """

    def __init__(self, database: Database, *, retry: RetrySettings | None = None) -> None:
        self._db = database
        self._sql = load_queries("sqlite/propagation.sql")
        self._max_retries = retries(retry or RetrySettings())

    # --- LaneStore ----------------------------------------------------------------------------------------------------

    async def begin(self, revision: int, now: datetime) -> bool:
        """Remember the birth of a store that is new."""
        if self._db.read(self._sql["begun"]):
            return False
        async with self._db.transaction():
            self._db.execute(self._sql["set_meta"], ("born", birth_text(Birth(revision, now))))
        return True

    async def birth(self) -> Birth | None:
        """What was remembered of it."""
        rows = self._db.read(self._sql["birth"])
        return birth_of(rows[0][0]) if rows else None

    async def lanes(self) -> Sequence[Lane]:
        """Every lane, in the order in which they were made."""
        sql = self._sql["lanes"]
        return await self._db.scan(lambda read: [lane_from(row) for row in read(sql)])

    async def claim(
        self,
        owner: str,
        now: datetime,
        lease_until: datetime,  # noqa: ARG002 - the lock file holds them
        *,
        leaving: Collection[str] = (),  # noqa: ARG002
        holding: int = -1,  # noqa: ARG002
    ) -> Claimed:
        """Take every lane: the lock file has made sure that no other daemon runs, so nothing is shared out.

        What another owner left SENDING is PENDING again, or dead at its third crash; those count as `failed`.
        """
        who = {"owner": owner, "now": text(now), "limit": CRASH_LIMIT}
        async with self._db.transaction():
            recovered = self._db.execute(self._sql["recover_sending"], who)
            self._count(Counters(failed=sum(state == DeliveryState.DEAD for (state,) in recovered)))
            self._db.execute(self._sql["take_lanes"], who)
            self._db.execute(self._sql["set_meta"], ("max_retries", str(self._max_retries)))
            lanes = [lane_from(row) for row in self._db.execute(self._sql["lanes"])]
        return Claimed(share=len(lanes), lanes=lanes)

    async def apply(self, settlements: Settlements) -> None:
        """All of it in one durable commit, except lanes whose stored owner or generation is another, with their rows.

        Lanes are dropped first, so that one which is also given is replaced. Sessions, counters and deeds
        are of no lane and always go in. Raises Invalid, with nothing applied, for a row or an attempt whose lane is not
        among `settlements.lanes`: it could not be fenced.
        """
        if settlements == NOTHING:
            return
        check_lanes_given(settlements)
        async with self._db.transaction():
            ours, dropped = self._admitted(settlements)
            many, sql = self._db.executemany, self._sql
            many(sql["lose_target"], [{"lane": lane_id} for lane_id in dropped])
            many(sql["drop_lane"], [(lane_id,) for lane_id in dropped])
            many(sql["put_lane"], [lane_row(lane) for lane in settlements.lanes if lane.lane_id in ours])
            many(sql["put_delivery"], [delivery_row(row) for row in settlements.upserts if row.lane_id in ours])
            many(sql["remove_delivery"], [pair for pair in settlements.removed if pair[0] in ours])
            many(sql["add_attempt"], [attempt_row(item) for item in settlements.attempts if item.lane_id in ours])
            many(sql["drop_command"], [(number,) for lane_id, number in settlements.obeyed if lane_id in ours])
            self._put_sessions(settlements.sessions)
            many(sql["put_arrival"], [arrival_row(each) for each in settlements.arrivals])
            self._count(settlements.counters)
            append(self._db, settlements.deeds)

    async def due(self, lane_id: str, now: datetime, limit: int, *, untried: bool = False) -> Sequence[Delivery]:
        """At most `limit` rows that may be tried now, in order of (revision, seq); never two of one record."""
        where = {"lane": lane_id, "now": text(now), "reach": _MANY, "limit": limit}
        if untried:
            return [delivery_from(row) for row in self._db.read(self._sql["due_untried"], where)]
        with self._db.snapshot():
            rows = self._db.read(self._sql["due_pending"], where)
            ((reach,),) = self._db.read(self._sql["due_waiting_reach"], where)
            if reach:
                query = "due_waiting_few" if reach < _MANY else "due_waiting_many"
                rows += self._db.read(self._sql[query], where)
        return sorted(map(delivery_from, rows), key=lambda delivery: delivery.position)[:limit]

    async def next_due(self) -> datetime | None:
        """The earliest next_at of the WAITING rows that no earlier row of their record stands before."""
        rows = self._db.read(self._sql["next_due"])
        return datetime.fromisoformat(rows[0][0]) if rows else None

    async def blocked_keys(self, lane_id: str, keys: Collection[Key]) -> set[Key]:
        wanted = orjson.dumps([list(key) for key in keys]).decode()
        rows = self._db.read(self._sql["blocked_keys"], {"lane": lane_id, "keys": wanted})
        return {Key(*row) for row in rows}

    async def depth(self) -> Depth:
        """The totals, from the counts that each lane keeps: O(lanes), whatever waits."""
        with self._db.snapshot():
            ((queue_depth, webhooks_pending, waiting, dead),) = self._db.read(self._sql["depth"])
            totals = self._db.read(self._sql["counters"])
        return Depth(
            queue_depth=queue_depth,
            webhooks_pending=webhooks_pending,
            waiting=waiting,
            dead=dead,
            counters=Counters(**{str(name): value for name, value in totals}),
        )

    async def oldest(self) -> Mapping[str, datetime]:
        """Lane id -> when its oldest delivery that has not ended was planned; only lanes that have one."""
        sql = self._sql["oldest"]
        rows = await self._db.scan(lambda read: read(sql))
        return {lane_id: datetime.fromisoformat(at) for lane_id, at in rows if at != "~"}

    async def unsent(self) -> Mapping[str, Unsent]:
        """The lowest revisions that lanes still need."""
        sql = self._sql["unsent"]
        return await self._db.scan(lambda read: {row[0]: Unsent(*row[1:]) for row in read(sql)})

    async def rebase(self, now: datetime) -> None:
        """The clock has gone back to `now`: no wait is longer than it was to be, from now."""
        async with self._db.transaction():
            self._db.execute(self._sql["rebase"], {"now": text(now)})

    async def hasten(self, lane_id: str, now: datetime) -> None:
        """What waits in the lane for a later moment is due now."""
        async with self._db.transaction():
            self._db.execute(self._sql["hasten"], {"lane": lane_id, "now": text(now)})

    # --- LaneCommands -------------------------------------------------------------------------------------------------

    async def give(self, command: Command) -> None:
        """Store a command for its lane, durably."""
        async with self._db.transaction():
            self._db.execute(self._sql["give_command"], command_row(command))

    async def commands(self) -> Sequence[Command]:
        """What is still to be done, in order."""
        return [command_from(row) for row in self._db.read(self._sql["commands"])]

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
        params: dict[str, object] = {
            "lane": lane_id,
            "session": session_id,
            "states": orjson.dumps([str(state) for state in states]).decode() if states else None,
            "since": since and text(since),
            "limit": limit,
            **({} if key is None else key._asdict()),
        }
        return await self._db.scan(lambda read: [delivery_from(row) for row in read(self._sql[query], params)])

    async def delivery(self, delivery_id: str) -> Delivery | None:
        """The row of one delivery, if it has one."""
        rows = self._db.read(self._sql["delivery"], (delivery_id,))
        return delivery_from(rows[0]) if rows else None

    async def missed_event(self, lane_id: str, key: Key, before: Position) -> Position | None:
        """The newest event before a place that was given up or cancelled."""
        where = {"lane": lane_id, **key._asdict(), "revision": before.revision, "seq": before.seq}
        rows = self._db.read(self._sql["missed_event"], where)
        return Position(*rows[0]) if rows else None

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        """What was tried for one delivery without success, in order; also after it has arrived."""
        return [attempt_from(row) for row in self._db.read(self._sql["attempts"], (delivery_id,))]

    async def sessions(self, session_id: str | None = None) -> Sequence[Session]:
        """All sessions, oldest first, or the one."""
        if session_id is not None:
            return [session_from(row) for row in self._db.read(self._sql["session"], (session_id,))]
        sql = self._sql["sessions"]
        return await self._db.scan(lambda read: [session_from(row) for row in read(sql)])

    # --- SessionStore -------------------------------------------------------------------------------------------------

    async def undone(
        self, *, session_id: str | None = None, lane_id: str | None = None, after: Delivery | None = None, limit: int
    ) -> Sequence[Delivery]:
        """A page of live rows that nobody has under way."""
        query, what = undone_query(session_id, lane_id, after)
        params = {**what, "limit": limit}
        return await self._db.scan(lambda read: [delivery_from(row) for row in read(self._sql[query], params)])

    async def release(self, after: Position, limit: int, now: datetime) -> Sequence[Looked]:
        """Looks in a thread; writes only where something is to be let go."""
        where = {"revision": after.revision, "seq": after.seq, "most": limit}
        rows = await self._db.scan(lambda read: read(self._sql["look_after"], where))
        free = [(text(now), row[0]) for row in rows if row[4]]
        if free:
            async with self._db.transaction():
                self._db.executemany(self._sql["release"], free)
        return [Looked(row[1], Position(row[2], row[3]), bool(row[4])) for row in rows]

    async def open_sessions(self, after: str, limit: int) -> Sequence[tuple[Session, Sequence[str]]]:
        where = {"after": after, "limit": limit}
        rows = await self._db.scan(lambda read: read(self._sql["open_sessions"], where))
        return [(session_from(row), tuple(orjson.loads(row[12]))) for row in rows]

    async def arrivals(self, session_id: str) -> Sequence[Arrival]:
        return [arrival_from(row) for row in self._db.read(self._sql["arrivals"], (session_id,))]

    async def transitions(self, session_id: str) -> Sequence[Transition]:
        return [transition_from(row) for row in self._db.read(self._sql["transitions"], (session_id,))]

    # --- inside a transaction -----------------------------------------------------------------------------------------

    def _admitted(self, settlements: Settlements) -> tuple[set[str], list[str]]:
        """The lanes to write, and those to drop before that.

        Written: what is new, or stored with the same owner and generation. A lane that is both given and dropped is
        replaced by the given one, whose generation starts anew, if it is stored with the same owner.
        """
        given = {lane.lane_id: (lane.owner, lane.generation) for lane in settlements.lanes}
        rows = self._db.execute(self._sql["lane_owners"], (orjson.dumps(list(given)).decode(),))
        stored = {lane_id: (owner, generation) for lane_id, owner, generation in rows}
        replaced = set(settlements.dropped_lanes)
        ours = {
            lane_id
            for lane_id, owned in given.items()
            if stored.get(lane_id, owned) == owned or (lane_id in replaced and stored[lane_id][0] == owned[0])
        }
        return ours, [lane_id for lane_id in settlements.dropped_lanes if lane_id in ours or lane_id not in given]

    def _put_sessions(self, sessions: Collection[Session]) -> None:
        many, sql = self._db.executemany, self._sql
        many(sql["put_session"], [session_row(session) for session in sessions])
        kept = [(session.session_id, orjson.dumps(session.targets).decode()) for session in sessions]
        many(sql["trim_session_targets"], kept)
        many(sql["put_session_target"], [row for session in sessions for row in session_target_rows(session)])

    def _count(self, counters: Counters) -> None:
        added = msgspec.structs.asdict(counters)
        self._db.executemany(self._sql["add_to_counter"], [(count, name) for name, count in added.items() if count])
