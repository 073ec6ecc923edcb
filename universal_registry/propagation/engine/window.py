"""What one lane has in hand: planned lines on their way, and how far its position may move. In memory, no I/O.

A lane plans ahead of what it has delivered. Its stored position may pass a planned line only when that line is
delivered or stands in a row; `commit_point` is the one place that decides this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import takewhile

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change
from universal_registry.propagation.engine.jobs import Fresh, Job, Judge
from universal_registry.propagation.engine.packs import Pack
from universal_registry.propagation.engine.stirred import Stirred
from universal_registry.propagation.lanes.breaker import may_send, probe_due
from universal_registry.propagation.lanes.lane import LIVE_STATES, Delivery, DeliveryState, Lane, Mark, Order
from universal_registry.propagation.routing.target import Target
from universal_registry.propagation.routing.target_traffic import Revisions

WINDOW = 256
WAITS = "waits for its target"
_ALL = Key("", "", "")
_EVENT = "event"


class LaneRun:
    """One lane at work.

    `rows` counts its live rows, those not yet committed included; `rows_changed`: some may be due that were not before.
    Rows to be tried are `claiming` until they are stored as SENDING, then `due`; `claimed` holds them as they were.
    `storing`: attempts that have ended, and are being stored. `leaving`: rows that are being taken away. `place`: among
    the lanes that take turns. `handed_over`: another daemon is to have it, so nothing of it is begun any more.
    `_overtaken`: rows that `commit_point` made, by record: later lines of it may be `ready` still, and wait for them.
    """

    def __init__(self, lane: Lane, target: Target, stirred: Stirred | None = None) -> None:
        self.lane = lane
        self.target = target
        self.address = target.address
        self._stirred = stirred or Stirred()
        self._pack: Pack | None = None
        self._own = Mark(lane.position, lane.hash8, lane.backfill)
        self.rows = lane.rows
        self.rows_changed = lane.rows > 0
        self.row_version = 0
        self.ready: deque[Fresh] = deque()
        self.due: deque[Delivery] = deque()
        self.claiming: list[Delivery] = []
        self.claimed: dict[str, Delivery] = {}
        self.flight: dict[str, Job] = {}
        self.storing = 0
        self.leaving: set[str] = set()
        self.place = 0
        self.handed_over = False
        self._open: dict[int, Fresh] = {}
        self._order = 0
        self._passed: tuple[int, Mark] | None = None
        self._busy: set[Key] = set()
        self._overtaken: dict[Key, set[str]] = {}
        self._unstored: dict[str, Delivery] = {}
        self._unstored_keys: set[Key] = set()
        self._stirred.alone[self] = None
        if self.rows:
            self._stirred.rowed[self] = None

    def closed(self, now: datetime) -> str:
        """Why nothing at all may be sent now, not even a probe; empty when something may."""
        return self.target.held or ("" if probe_due(self.lane, now) else may_send(self.lane, now))

    def stir(self) -> None:
        """Something may be ready, or its standing may have changed."""
        self._stirred.sendable[self] = None

    @property
    def weight(self) -> int:
        """How many attempts it may start in one turn."""
        return self.target.traffic.weight

    def key_of(self, delivery: Delivery) -> Key:
        """What waits for each other has the same key: by the lane's order one record, everything, or nothing."""
        match self.lane.order:
            case Order.PER_KEY:
                return delivery.key
            case Order.STRICT:
                return _ALL
            case Order.NONE:
                return Key("", "", delivery.delivery_id)

    def reorder(self, order: Order) -> None:
        """From now on another order: what was planned in the old one is stored, and found again in the new one."""
        if order is not self.lane.order:
            self.park(list(self.ready), "the order has changed")
            self._overtaken.clear()
            self.lane = msgspec.structs.replace(self.lane, order=order)

    # --- planning ------------------------------------------------------------------------------------------------

    @property
    def scanned(self) -> Mark:
        """How far the lane has been planned: as far as its pack, or further by a line that was for it."""
        if self._pack is None or self._pack.mark.position < self._own.position:
            return self._own
        return self._pack.mark

    def join(self, pack: Pack) -> None:
        """From now on the lane is as far as the pack."""
        self._pack = pack
        self._stirred.alone.pop(self, None)

    def go_alone(self, mark: Mark) -> None:
        """From now on the lane reads the log for itself, from `mark` on."""
        if self._pack is not None:
            del self._pack.runs[self.address]
        self._pack, self._own = None, mark
        self._stirred.alone[self] = None

    @property
    def room(self) -> int:
        """How many more lines may be planned."""
        return WINDOW - len(self._open)

    @property
    def unfinished(self) -> int:
        """Planned lines that are neither delivered nor in a row."""
        return len(self._open)

    def add(self, delivery: Delivery, change: Change, mark: Mark, reason: str = "") -> None:
        """Plan a line: it is sent in its turn, or becomes a row at once where there is a reason. The lane has now been
        planned as far as `mark`."""
        if self.target.traffic.revisions is Revisions.LATEST and delivery.op != _EVENT:
            self._overtake(delivery)
        fresh = Fresh(self._order, self.key_of(delivery), delivery, change, mark)
        self._order += 1
        self._open[fresh.order] = fresh
        self.ready.append(fresh)
        self.stir()
        self._own = mark
        if reason:
            self.park([fresh], reason)

    def _overtake(self, newer: Delivery) -> None:
        """Older state of the record that has not been tried yet is passed over."""
        older = [each for each in self.ready if each.delivery.op != _EVENT and each.delivery.key == newer.key]
        for fresh in older:
            self.ready.remove(fresh)
            self._pass(fresh)
        self._superseded(len(older))

    def supersede(self, rows: Collection[Delivery]) -> None:
        """These rows are passed over; whoever says so takes them away."""
        self.leaving.update(row.delivery_id for row in rows)
        self.rows -= len(rows)
        self.rows_changed = True
        for row in rows:
            self._caught_up(row.delivery_id, self.key_of(row))
        self.stir()
        self._superseded(len(rows))

    def _superseded(self, count: int) -> None:
        if count:
            guard = self.lane.guard
            guard = msgspec.structs.replace(guard, superseded=guard.superseded + count)
            self.lane = msgspec.structs.replace(self.lane, guard=guard)

    # --- sending -------------------------------------------------------------------------------------------------

    def next_job(self, *, probe: bool, retries: bool = True) -> Job | None:
        """The next attempt that the order allows, rows first. `retries`: what failed before, too."""
        for index, row in enumerate(self.due):
            key = self.key_of(row)
            if key not in self._busy and (retries or not row.attempts):
                del self.due[index]
                return self._start(Job(self, row, None, key, probe))
        for index, fresh in enumerate(self.ready):
            if fresh.key not in self._busy and fresh.key not in self._overtaken:
                del self.ready[index]
                return self._start(Job(self, fresh.delivery, fresh, fresh.key, probe))
        return None

    def _start(self, job: Job) -> Job:
        self.flight[job.delivery.delivery_id] = job
        self._busy.add(job.key)
        return job

    def revive(self, row: Delivery) -> None:
        """A dead row lives again; whoever says so stores it."""
        self.rows += row.state in LIVE_STATES
        self._stirred.rowed[self] = None
        self.row_version += 1
        self.rows_changed = True

    def is_busy(self, row: Delivery) -> bool:
        """Whether an earlier change of the row's record is under way or about to be."""
        key = self.key_of(row)
        if key in self._busy:
            return True
        return any(fresh.key == key and fresh.delivery.position < row.position for fresh in self._open.values())

    def claims_stored(self, rows: Iterable[Delivery], judged: Judge) -> None:
        """These are stored as under way, and may be; but not those of which people thought otherwise meanwhile."""
        self.due.extend(rows)
        self.claiming = []
        self._recall_due(judged)
        self.stir()

    def claim(self, rows: Iterable[Delivery], limit: int) -> list[Delivery]:
        """Take rows to be tried, except for what would be blamed for nothing: of those over which a daemon has ended
        before, only `limit` are taken at once, which is what can be under way."""
        suspects = sum(row.crashes > 0 for row in self.claimed.values())
        for row in rows:
            suspects += row.crashes > 0
            if row.crashes == 0 or suspects <= limit:
                self.claiming.append(row)
                self.claimed[row.delivery_id] = row
        return self.claiming

    def give_back(self, rows: Sequence[Delivery]) -> Sequence[Delivery]:
        """These were claimed and have not been begun: as they were; whoever asks stores them."""
        for row in rows:
            self.due.remove(row)
            del self.claimed[row.delivery_id]
        self.rows_changed = self.rows_changed or bool(rows)
        return rows

    def put_back(self, job: Job) -> None:
        """Nothing was sent: the attempt is still to be made."""
        del self.flight[job.delivery.delivery_id]
        self._busy.discard(job.key)
        if job.fresh is not None:
            self.ready.appendleft(job.fresh)
        else:
            self.due.appendleft(job.delivery)
        self.stir()

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way, nor to be stored: what is planned besides, somebody else plans again."""
        return not (self.flight or self.storing or self.claimed or self.leaving or self._unstored)

    def is_quiet(self, now: datetime) -> bool:
        """Whether nothing that was planned is to be done, stored or looked for now."""
        if self.unfinished or self.claimed or self.is_parked:
            return False
        # A row may have become due, and nobody has looked yet.
        return not (self.rows and self.rows_changed and not self.target.held and not may_send(self.lane, now))

    def finish(self, job: Job, row: Delivery | None) -> None:
        """The attempt ended; `row` is what remains of the delivery (None: delivered).

        Planned lines of the same record wait behind a row that is tried again.
        """
        delivery_id, key = job.delivery.delivery_id, job.key
        self.stir()
        self.flight.pop(delivery_id, None)
        self.claimed.pop(delivery_id, None)
        self._busy.discard(key)
        if job.fresh is not None:
            self._pass(job.fresh)
        else:
            self.rows -= 1
        self.rows_changed = True
        if row is None or row.state not in LIVE_STATES:
            self._caught_up(delivery_id, key)
        if row is None:
            return
        self._put(row)
        if row.state in LIVE_STATES:
            behind = [fresh for fresh in self.ready if fresh.key == key]
            self.park(behind, f"waits behind revision {row.revision}")

    def park(self, planned: Iterable[Fresh], reason: str) -> None:
        """Planned lines that cannot be sent now become rows."""
        for fresh in list(planned):
            self.ready.remove(fresh)
            self._pass(fresh)
            self._put(msgspec.structs.replace(fresh.delivery, reason=reason))

    def recall(self, judged: Judge) -> None:
        """What is in hand here and nobody has under way becomes rows as judged now, where that is otherwise."""
        self._recall_due(judged)
        for fresh in list(self.ready):
            row = judged(fresh.delivery)
            if row is not fresh.delivery:
                self.ready.remove(fresh)
                self._pass(fresh)
                self._put(row)
        for row in [each for each in self._unstored.values() if each.state is not DeliveryState.SENDING]:
            if (now_so := judged(row)) is not row:
                self.restate(now_so)

    def _recall_due(self, judged: Judge) -> None:
        for row in list(self.due):
            if (now_so := judged(row)) is not row:
                self.due.remove(row)
                del self.claimed[row.delivery_id]
                self.restate(now_so)

    def restate(self, row: Delivery) -> None:
        """A live row that nobody has under way is to be stored as it is now. One that lives no more is waited for no
        longer."""
        self.rows -= 1
        if row.state not in LIVE_STATES:
            self._caught_up(row.delivery_id, self.key_of(row))
            self.stir()
        self._put(row)

    def has_in_hand(self, delivery_id: str) -> bool:
        """Whether more is known of the row here than the store says."""
        return delivery_id in self.claimed or delivery_id in self.leaving or delivery_id in self._unstored

    def _put(self, row: Delivery) -> None:
        self.row_version += 1
        self.rows_changed = True
        self._unstored[row.delivery_id] = row
        self._stirred.parked[self] = None
        if row.state in LIVE_STATES:
            self.rows += 1
            self._stirred.rowed[self] = None
            self._unstored_keys.add(self.key_of(row))

    # --- committing ----------------------------------------------------------------------------------------------

    @property
    def is_parked(self) -> bool:
        """Whether rows wait to be stored."""
        return bool(self._unstored)

    def has_unstored(self, key: Key) -> bool:
        """Whether there is a live row of the key (see `key_of`) that waits to be stored."""
        return key in self._unstored_keys

    def commit_point(self) -> tuple[Mark, list[Delivery]]:
        """How far the stored position may go now, and the rows that must be stored in the same commit.

        Planned lines below the furthest finished one get rows: those under way as SENDING, so that a dead daemon's
        successor sends at most these again.
        """
        mark = self._mark()
        rows, self._unstored = list(self._unstored.values()), {}
        self._unstored_keys.clear()
        return mark, rows

    def _mark(self) -> Mark:
        if self._open and self._passed is None:
            return Mark(self.lane.position, self.lane.hash8, self.lane.backfill)
        if self._open and self._passed is not None:
            furthest, mark = self._passed
            self._make_rows_below(furthest)
            if self._open:
                return mark
        self._passed = None
        return self.scanned

    def _make_rows_below(self, furthest: int) -> None:
        below = list(takewhile(lambda each: each.order < furthest, self._open.values()))
        for fresh in below:
            delivery = fresh.delivery
            job = self.flight.get(delivery.delivery_id)
            if job is None:
                self.park([fresh], "waits its turn")
                self._overtaken.setdefault(fresh.key, set()).add(delivery.delivery_id)
                continue
            del self._open[fresh.order]
            job.fresh = None
            self.claimed[delivery.delivery_id] = delivery
            self._put(msgspec.structs.replace(delivery, state=DeliveryState.SENDING))

    def _caught_up(self, delivery_id: str, key: Key) -> None:
        waiting = self._overtaken.get(key)
        if waiting is not None:
            waiting.discard(delivery_id)
            if not waiting:
                del self._overtaken[key]

    def _pass(self, fresh: Fresh) -> None:
        self._open.pop(fresh.order, None)
        if self._passed is None or fresh.order > self._passed[0]:
            self._passed = (fresh.order, fresh.mark)
