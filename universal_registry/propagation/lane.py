"""A lane: a reader of the log with a destination. What it has not delivered below its position stands in rows."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from universal_registry.kernel.ids import Key


class Breaker(StrEnum):
    """State of a lane's circuit breaker. HALF_OPEN: one probe is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


_SEQ_BITS = 20
WHOLE = (1 << _SEQ_BITS) - 1
"""The `seq` of a position behind all lines of its revision."""


class Position(msgspec.Struct, frozen=True, order=True):
    """Every line up to and including (revision, seq) has been planned; `seq` WHOLE: all of the revision."""

    revision: int
    seq: int

    @property
    def packed(self) -> int:
        """As one number that sorts alike."""
        return (self.revision << _SEQ_BITS) + self.seq


def unpacked(number: int) -> Position:
    """The position of a packed number."""
    return Position(number >> _SEQ_BITS, number & WHOLE)


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """Current state, sent before the lane goes on: of a new route, or (`route_uid` empty) of all routes to a new
    target. It is that of the lines before revision `upto`.

    It has been planned as far as `at`, a position packed as revision * 2^20 + seq.
    """

    route_uid: str
    upto: int
    at: int


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """The durable state of one target's lane. `generation` rises with each owner; what an older one settles is dropped.

    `incarnation` and `hash8` with `position` are the cursor. `held` is why nothing may be sent now, empty when it may
    (breaker apart). `rows` counts its live delivery rows (not dead, not cancelled).
    """

    lane_id: str
    target_uid: str
    target_namespace: str
    target_name: str
    transport: str
    owner: str = ""
    generation: int = 0
    lease_until: datetime | None = None
    incarnation: str
    position: Position
    hash8: str = ""
    backfill: Backfill | None = None
    breaker: Breaker = Breaker.CLOSED
    failures: int = 0
    trips: int = 0
    open_until: datetime | None = None
    pause_until: datetime | None = None
    paused: bool = False
    held: str = ""
    rows: int = 0
    delivered: int = 0
    dead: int = 0
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    last_error: str = ""


class DeliveryState(StrEnum):
    """State of a delivery row. Delivered ones have none: they are what lies below the position without one."""

    PENDING = "pending"
    SENDING = "sending"
    WAITING = "waiting"
    DEAD = "dead"
    CANCELLED = "cancelled"


LIVE_STATES = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.WAITING)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log on its way to one target. A row of the store once it could not be delivered at once.

    `attempts` counts from 0: how many have ended; while one is under way the row is SENDING. `reason`: why it waits, is
    held or dead.
    """

    delivery_id: str
    lane_id: str
    session_id: str
    route_uid: str
    op: str
    kind: str
    namespace: str
    name: str
    revision: int
    seq: int
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    crashes: int = 0
    next_at: datetime | None = None
    reason: str = ""
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)

    @property
    def position(self) -> Position:
        return Position(self.revision, self.seq)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that did not succeed, as it is kept (append only). `number` counts from 0."""

    delivery_id: str
    lane_id: str
    number: int
    at: datetime
    outcome: str
    status: int | None
    milliseconds: float
    reason: str


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One propagation as people see it: standing (a route) or one-shot (an event line).

    `targets` are "namespace/name". `state`: standing: syncing | in_sync | degraded | cancelled; one-shot: running, from
    its beginning on: how far it is, its deliveries say.
    """

    session_id: str
    mode: str
    source: str
    targets: tuple[str, ...]
    standing: bool
    state: str
    revision: int
    created_at: datetime
    last_activity: datetime


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the store was made (or increments, in a batch)."""

    executed: int = 0
    delivered: int = 0
    retried: int = 0
    failed: int = 0
    messages: int = 0


class Settlements(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one tick decided, applied in one commit. A lane whose generation is no longer the stored one is left
    out with all its rows."""

    lanes: tuple[Lane, ...] = ()
    upserts: tuple[Delivery, ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    attempts: tuple[Attempt, ...] = ()
    sessions: tuple[Session, ...] = ()
    dropped_lanes: tuple[str, ...] = ()
    counters: Counters = Counters()
