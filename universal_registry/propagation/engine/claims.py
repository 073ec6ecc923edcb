"""Rows that may be tried again are claimed: stored as under way before they are, so that a crash is never forgotten."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec.structs import replace

from universal_registry.propagation.engine.dispatcher import Dispatcher
from universal_registry.propagation.engine.outbox import Outbox
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.breaker import may_send, probe_due
from universal_registry.propagation.lanes.lane import LIVE_STATES, Delivery, DeliveryState, Keep, Order
from universal_registry.propagation.lanes.retry_budget import retries
from universal_registry.propagation.ports import LaneQueries, LaneStore
from universal_registry.propagation.routing.session_gate import Gate
from universal_registry.propagation.routing.target_traffic import Revisions

_AT_ONCE = 64
_AHEAD = 4  # for each that can be under way: all of them are blamed when the daemon ends


class Rows(LaneStore, LaneQueries, Protocol):
    """The part of the propagation store that claims need."""


class Claims:
    """Claims due rows for lanes. `next_due`: when the next row becomes due, as of the last look."""

    def __init__(self, store: Rows, dispatcher: Dispatcher, gate: Gate, outbox: Outbox) -> None:
        self.outbox = outbox
        self._gate = gate
        self.next_due: datetime | None = None
        self._store = store
        self._dispatcher = dispatcher

    async def look(self, rowed: MutableMapping[LaneRun, None], now: datetime) -> None:
        """Mark rows that may be tried as under way. They are handed out once that is stored. `rowed`: the lanes that
        may have rows; those that have none any more are taken out."""
        runs = list(rowed)
        for run in runs:
            if not (run.rows or run.claimed):
                del rowed[run]
        if not rowed:
            self.next_due = None
            return
        time_is_up = self.next_due is not None and self.next_due <= now
        for run in runs:
            self._give_back(run, now)
            if not run.handed_over and run.rows and not run.claiming and not run.target.held:
                await self._look(run, now, time_is_up)
        self.next_due = await self._store.next_due()

    def _give_back(self, run: LaneRun, now: datetime) -> None:
        """What was claimed and cannot be begun now is not under way, and whoever looks is not to be told so."""
        if rows := run.give_back(self._not_to_begin(run, now)):
            self.outbox.rows(rows)
            self.outbox.lane(run.lane)

    def _not_to_begin(self, run: LaneRun, now: datetime) -> list[Delivery]:
        if run.handed_over or run.closed(now):
            return list(run.due)
        if may_send(run.lane, now):
            return list(run.due)[1:]  # a probe is due
        retried = [row for row in run.due if row.attempts]
        return retried[max(0, len(retried) + self._retries_left(run, now)) :] if retried else []

    def _retries_left(self, run: LaneRun, now: datetime) -> int:
        """How many rows more that have failed before the lane's budget lets be claimed; below 0: too many are."""
        claimed = sum(row.attempts > 0 for row in run.claimed.values())
        return retries(run.lane.guard, self._dispatcher.settings.retry, now) - claimed

    async def _look(self, run: LaneRun, now: datetime, time_is_up: bool) -> None:
        probing = probe_due(run.lane, now)
        if not (run.rows_changed or time_is_up or probing):
            return
        limit = self._dispatcher.limit(run)
        most = max(min(_AT_ONCE, _AHEAD * limit), 2 * limit)
        room = most - len(run.claimed)
        if may_send(run.lane, now):
            room = int(probing and not run.claimed)
        elif room < (most + 1) // 2:
            return
        if room <= 0:
            return
        run.rows_changed, version = False, run.row_version
        try:
            left = 1 if probing else self._retries_left(run, now)
            rows = await self._due(run, now, room, untried=left <= 0)
        except BaseException:
            run.rows_changed = True  # nobody has looked: ask again
            raise
        if version != run.row_version:
            run.rows_changed = True  # something happened while the store answered: ask again
            return
        if not probing:
            rows = self._affordable(run, rows, left)
        self._claim(run, [row for row in rows if self._is_free(run, row)], now)

    async def _due(self, run: LaneRun, now: datetime, room: int, *, untried: bool) -> Sequence[Delivery]:
        """`untried`: the budget is used up, and what failed before must not stand before what never was tried."""
        found = await self._store.due(run.lane.lane_id, now, room, untried=untried)
        run.rows_changed = run.rows_changed or untried  # the others are looked for again
        rows = [row for row in found if not self._is_known_better(run, row.delivery_id)]
        return await self._current(run, rows) if run.target.traffic.revisions is Revisions.LATEST else rows

    def _is_known_better(self, run: LaneRun, delivery_id: str) -> bool:
        """Whether the store has yet to hear what became of the row."""
        return run.has_in_hand(delivery_id) or self.outbox.knows(delivery_id)

    def _affordable(self, run: LaneRun, rows: Sequence[Delivery], most: int) -> Sequence[Delivery]:
        """What has failed before waits, unclaimed, until the budget allows it: `most` of it may go now, and first what
        was tried least, so that nothing is given up for the others."""
        retried = [row for row in rows if row.attempts]
        if len(retried) <= most:
            return rows
        run.rows_changed = True
        chosen = sorted(retried, key=lambda row: row.attempts)[: max(0, most)]
        return [row for row in rows if not row.attempts or row in chosen]

    def _is_free(self, run: LaneRun, row: Delivery) -> bool:
        """Whether nothing that happened since the store last heard of the record keeps its row back."""
        record = None if run.lane.order is Order.STRICT else row.key
        unstored = run.has_unstored(run.key_of(row)) or self.outbox.blocks(run.lane.lane_id, record)
        free = not run.is_busy(row) and not unstored
        run.rows_changed = run.rows_changed or not free
        return free

    def _claim(self, run: LaneRun, rows: Sequence[Delivery], now: datetime) -> None:
        judged = [(row, self._gate.judged(row)) for row in rows]
        for row, now_so in judged:
            if now_so is not row:
                run.restate(now_so)
        if claimed := run.claim([row for row, now_so in judged if now_so is row], self._dispatcher.limit(run)):
            self.outbox.rows(
                replace(row, state=DeliveryState.SENDING, reason="under way, or next in turn", updated_at=now)
                for row in claimed
            )
            self.outbox.lane(run.lane)

    # --- only the newest ----------------------------------------------------------------------------------------------

    async def _current(self, run: LaneRun, rows: Sequence[Delivery]) -> list[Delivery]:
        """The rows of which no newer revision waits; the others are superseded, and go. Events never are."""
        kept: list[Delivery] = []
        for row in rows:
            lane_id = run.lane.lane_id
            waiting = await self._store.deliveries(lane_id=lane_id, key=row.key, states=LIVE_STATES)
            states = [each for each in waiting if _may_overtake(each) and each.delivery_id not in run.leaving]
            if len(states) < 2 or row.op == "event" or not self._is_free(run, row):
                kept.append(row)
                continue
            run.supersede(states[:-1])
            for each in states[:-1]:
                self.outbox.delivered(each)
            self.outbox.lane(run.lane)
        return kept


def _may_overtake(row: Delivery) -> bool:
    return row.op != "event" and row.keep is Keep.NONE
