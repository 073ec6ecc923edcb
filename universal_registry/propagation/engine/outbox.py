"""What ticks decided and the store has not taken yet. It survives a failed commit, so that no outcome is forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.audit import Deed
from universal_registry.propagation.lanes.lane import (
    LIVE_STATES,
    Arrival,
    Attempt,
    Counters,
    Delivery,
    DeliveryState,
    Lane,
    Session,
    Settlements,
)


class Outbox:
    """Collects settlements; the newest word on each row, lane and session counts.

    `before`: the outbox that is being committed while this one collects.
    """

    def __init__(self, before: Outbox | None = None) -> None:
        self.before = before
        self._blocked: Counter[tuple[str, Key | None]] = Counter()
        self._lanes: dict[str, Lane] = {}
        self._upserts: dict[str, Delivery] = {}
        self._removed: dict[str, str] = {}
        self._attempts: list[Attempt] = []
        self._sessions: dict[str, Session] = {}
        self._arrivals: dict[tuple[str, str, str], Arrival] = {}
        self._dropped: list[str] = []
        self._counted: list[Counters] = []
        self._deeds: list[Deed] = []
        self._obeyed: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes or self._upserts or self._removed or self._sessions or self._dropped or self._deeds)

    def lane(self, lane: Lane) -> None:
        """The lane as it is now."""
        self._lanes[lane.lane_id] = lane

    def rows(self, rows: Iterable[Delivery]) -> None:
        """Rows as they are now."""
        for row in rows:
            self._forget(row.delivery_id)
            self._upserts[row.delivery_id] = row
            self._removed.pop(row.delivery_id, None)
            if row.state in LIVE_STATES:
                self._count(row, 1)

    def _forget(self, delivery_id: str) -> None:
        old = self._upserts.pop(delivery_id, None)
        if old is not None and old.state in LIVE_STATES:
            self._count(old, -1)

    def _count(self, row: Delivery, by: int) -> None:
        self._blocked[row.lane_id, row.key] += by
        self._blocked[row.lane_id, None] += by

    def delivered(self, delivery: Delivery) -> None:
        """The delivery is done: its row, if it has one, goes."""
        self._forget(delivery.delivery_id)
        self._removed[delivery.delivery_id] = delivery.lane_id

    def arrived(self, arrival: Arrival | None) -> None:
        """A one-shot session has arrived at a target."""
        if arrival is not None:
            self._arrivals[arrival.session_id, arrival.target_namespace, arrival.target_name] = arrival

    def attempt(self, attempt: Attempt | None, counters: Counters) -> None:
        """An attempt that did not succeed, and what to add to the totals."""
        if attempt is not None:
            self._attempts.append(attempt)
        self._counted.append(counters)

    def session(self, session: Session) -> None:
        """The session as it is now."""
        self._sessions[session.session_id] = session

    def deed(self, deed: Deed) -> None:
        """What somebody did here, for the audit trail: written in the commit of what it tells of."""
        self._deeds.append(deed)

    def obeyed(self, lane_id: str, number: int) -> None:
        """A command to the lane is done."""
        self._obeyed[number] = lane_id

    def drop(self, lane_id: str) -> None:
        """The lane's target is gone: so are its rows."""
        self._lanes.pop(lane_id, None)
        for delivery_id in [key for key, row in self._upserts.items() if row.lane_id == lane_id]:
            self._forget(delivery_id)
        self._removed = {key: lane for key, lane in self._removed.items() if lane != lane_id}
        self._attempts = [attempt for attempt in self._attempts if attempt.lane_id != lane_id]
        self._obeyed = {number: lane for number, lane in self._obeyed.items() if lane != lane_id}
        self._dropped.append(lane_id)

    def waiting(self) -> Sequence[Delivery]:
        """The newest word on each live row that is not stored yet, and that nobody has under way."""
        rows = {row.delivery_id: row for row in self.before.waiting()} if self.before is not None else {}
        newer = {**rows, **self._upserts}
        return [
            row
            for row in newer.values()
            if row.delivery_id not in self._removed
            and row.state in LIVE_STATES
            and row.state is not DeliveryState.SENDING
        ]

    def knows(self, delivery_id: str) -> bool:
        """Whether there is a newer word on the row than what is stored."""
        if delivery_id in self._upserts or delivery_id in self._removed:
            return True
        return self.before is not None and self.before.knows(delivery_id)

    def blocks(self, lane_id: str, key: Key | None) -> bool:
        """Whether the record (None: any) has a live row in the lane that is not stored yet."""
        return self._blocked[lane_id, key] > 0 or (self.before is not None and self.before.blocks(lane_id, key))

    def holds(self, lane_id: str) -> bool:
        """Whether something about the lane is not stored yet."""
        return lane_id in self._lanes or (self.before is not None and self.before.holds(lane_id))

    def followed_by(self, newer: Outbox) -> Outbox:
        """The words of this one, which were not taken, and after them those of a newer one."""
        for lane_id in newer._dropped:
            self.drop(lane_id)
        self._lanes.update(newer._lanes)
        self.rows(newer._upserts.values())
        for delivery_id, lane_id in newer._removed.items():
            self._forget(delivery_id)
            self._removed[delivery_id] = lane_id
        self._attempts += newer._attempts
        self._sessions.update(newer._sessions)
        self._arrivals.update(newer._arrivals)
        self._counted += newer._counted
        self._deeds += newer._deeds
        self._obeyed.update(newer._obeyed)
        return self

    def settlements(self) -> Settlements:
        """All of it, for one commit."""
        return Settlements(
            lanes=tuple(self._lanes.values()),
            upserts=tuple(self._upserts.values()),
            removed=tuple((lane_id, delivery_id) for delivery_id, lane_id in self._removed.items()),
            attempts=tuple(self._attempts),
            sessions=tuple(self._sessions.values()),
            arrivals=tuple(self._arrivals.values()),
            dropped_lanes=tuple(self._dropped),
            counters=_sum(self._counted),
            deeds=tuple(self._deeds),
            obeyed=tuple((lane_id, number) for number, lane_id in self._obeyed.items()),
        )


def _sum(counted: Iterable[Counters]) -> Counters:
    totals = map(sum, zip(*map(msgspec.structs.astuple, counted), strict=True))
    return Counters(**dict(zip(Counters.__struct_fields__, totals, strict=False)))
