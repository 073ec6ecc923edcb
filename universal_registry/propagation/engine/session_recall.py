"""What people said about sessions is brought to the deliveries of this daemon's lanes: those in memory at once, those
that are stored page by page. The rows go the way of all others, so that nobody else writes to a lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from universal_registry.propagation.engine.session_states import Progress
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.lane import Delivery, Settlements
from universal_registry.propagation.ports import SessionStore
from universal_registry.propagation.routing.session_gate import Gate

_PAGE, _LANES = 1000, 50


class Store(SessionStore, Protocol):
    """The part of the propagation store that this needs."""


class Recall:
    """One daemon's. Whatever comes to be in memory after a word is judged when it comes; so only stored rows of which
    nothing is known here are read. `_touched`: rows that were stored while a page was read; None: none is being read.
    """

    def __init__(self, store: Store, gate: Gate, progress: Progress) -> None:
        self._store = store
        self._gate = gate
        self._progress = progress
        self._gained: deque[str] = deque()
        self._session_after: Delivery | None = None
        self._lane_after: Delivery | None = None
        self._touched: set[str] | None = None

    def gained(self, lane_id: str) -> None:
        """The lane is ours now: whose it was may have missed a word, and may have ended in the middle of one."""
        if self._gate.heard:
            self._gained.append(lane_id)

    @property
    def busy(self) -> bool:
        """Whether lanes that we gained are still to be looked at."""
        return bool(self._gained)

    def stored(self, settlements: Settlements) -> None:
        """What was committed is newer than a page that is being read."""
        if self._touched is not None:
            self._touched.update(row.delivery_id for row in settlements.upserts)
            self._touched.update(delivery_id for _, delivery_id in settlements.removed)

    async def session(self, session_id: str, runs: Mapping[str, LaneRun]) -> bool:
        """Go on with the deliveries of a session; whether that was all of it."""
        if self._session_after is None:
            self._in_memory(runs)
        self._session_after = await self._page(runs, session_id, None, self._session_after)
        return self._session_after is None

    async def lanes(self, runs: Mapping[str, LaneRun]) -> None:
        """Go on with the lanes that were gained: some of them, or one page of one."""
        for _ in range(min(_LANES, len(self._gained))):
            run = runs.get(self._gained[0])
            if run is not None and run.rows:
                self._lane_after = await self._page(runs, None, self._gained[0], self._lane_after)
                if self._lane_after is not None:
                    return
            self._lane_after = None
            self._gained.popleft()

    def _in_memory(self, runs: Mapping[str, LaneRun]) -> None:
        for run in runs.values():
            run.recall(self._gate.judged)
        for row in self._progress.outbox.waiting():
            self._judge(row, runs)

    async def _page(
        self, runs: Mapping[str, LaneRun], session_id: str | None, lane_id: str | None, after: Delivery | None
    ) -> Delivery | None:
        """Judge a page of rows behind one; its last row, None when nothing comes after it."""
        touched = self._touched = set()
        try:
            rows = await self._store.undone(session_id=session_id, lane_id=lane_id, after=after, limit=_PAGE)
        finally:
            self._touched = None
        for row in rows:
            if row.delivery_id not in touched and not self._progress.outbox.knows(row.delivery_id):
                self._judge(row, runs)
        return rows[-1] if len(rows) == _PAGE else None

    def _judge(self, row: Delivery, runs: Mapping[str, LaneRun]) -> None:
        run, now_so = runs.get(row.lane_id), self._gate.judged(row)
        if run is not None and now_so is not row and not run.has_in_hand(row.delivery_id):
            run.restate(now_so)
