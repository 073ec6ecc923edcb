"""A lane: a reader of the log with a destination. What it has not delivered below its position stands in rows."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.audit import Deed
from universal_registry.propagation.lanes.token_bucket import Bucket


class Breaker(StrEnum):
    """State of a lane's circuit breaker. HALF_OPEN: one probe is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Order(StrEnum):
    """What of a lane waits for what. PER_KEY: the lines of one record for each other; STRICT: every line for all before
    it; NONE: nothing for anything."""

    NONE = "none"
    PER_KEY = "per-key"
    STRICT = "strict"


class Hold(StrEnum):
    """What keeps a lane back until somebody acts, or the target answers again.

    GONE: the target said so (410). REFUSED: it does not take us, or we cannot send to it as things are set up; probed
    now and then. DISABLED: by a person, or by policy. ORDER: in strict order, a delivery is dead.
    """

    NONE = ""
    GONE = "gone"
    REFUSED = "refused"
    DISABLED = "disabled"
    ORDER = "order"


_SEQ_BITS = 20
WHOLE = (1 << _SEQ_BITS) - 1
"""The `seq` of a position behind all lines of its revision."""


class Position(msgspec.Struct, frozen=True, order=True):
    """Every line up to and including (revision, seq) has been planned; `seq` WHOLE: all of the revision."""

    revision: int
    seq: int

    @property
    def whole(self) -> int:
        """The newest revision of which nothing is left: a place inside a revision is not past it."""
        return self.revision if self.seq == WHOLE else self.revision - 1

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


class Mark(msgspec.Struct, frozen=True):
    """A stored place of a lane: its cursor, and its backfill if one is under way."""

    position: Position
    hash8: str
    backfill: Backfill | None = None


class Guard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What protects a target, and us from it, as it stands now.

    `hold` and `by` (who did it or paused it; empty: the engine). `opened_by`: who opened the breaker; empty: failures.
    `dead`: the delivery that strict order waits for. `ramp`: how many may be under way while a closed breaker starts
    slowly; 0: as many as ever. `target`: the revision of the target's record that all this is about; 0: not known.
    `budget`: what is left for failed retries. `rate`: the bucket of the target's rate limit. `failing_since`: of the
    failures since the last success the first; `lost`: deliveries given up since then; `noticed_at`: when it was said
    that the target will be disabled. `superseded`: how many revisions were passed over for a newer one. `gaps`: some
    event was given up here, so that those after it have to say so.
    """

    hold: Hold = Hold.NONE
    by: str = ""
    opened_by: str = ""
    dead: str = ""
    ramp: int = 0
    target: int = 0
    budget: Bucket | None = None
    rate: Bucket | None = None
    failing_since: datetime | None = None
    lost: int = 0
    noticed_at: datetime | None = None
    superseded: int = 0
    gaps: bool = False


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """The durable state of one target's lane. `generation` rises with each owner; what an older one settles is dropped.

    `incarnation` and `hash8` with `position` are the cursor. `held` is why nothing may be sent now, empty when it may
    (breaker apart). `rows` counts its live delivery rows (not dead, not cancelled). `order`: as its rows stand now.
    """

    lane_id: str
    target_uid: str
    target_namespace: str
    target_name: str
    transport: str
    owner: str = ""
    generation: int = 0
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
    order: Order = Order.PER_KEY
    guard: Guard = Guard()


class DeliveryState(StrEnum):
    """State of a delivery row. Delivered ones have none: they are what lies below the position without one."""

    PENDING = "pending"
    SENDING = "sending"
    WAITING = "waiting"
    DEAD = "dead"
    CANCELLED = "cancelled"


LIVE_STATES = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.WAITING)


class Keep(StrEnum):
    """What keeps a single delivery back. AFTER: it is a later hop of a chain. PAUSED: its session is."""

    NONE = ""
    AFTER = "after"
    PAUSED = "paused"


class WaitsFor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The earlier hops of a chain: each of these lanes must be past the place `at` (packed), and have no row of the
    same line any more; with `skip`, one that is dead does not count."""

    lanes: tuple[str, ...]
    at: int
    skip: bool = False


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log on its way to one target. A row of the store once it could not be delivered at once.

    `attempts` counts from 0: how many have ended; while one is under way the row is SENDING. `reason`: why it waits, is
    held or dead. `keep`: what keeps it back, whatever the lane does. `replay_of`: the delivery that this one repeats.
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
    keep: Keep = Keep.NONE
    waits_for: WaitsFor | None = None
    replay_of: str = ""

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

    `targets` are "namespace/name". `state`, and why it is so (`reason`): standing: planned | syncing | in_sync |
    degraded | paused | cancelled; one-shot: planned -> running <-> paused -> draining -> succeeded | partial | failed |
    cancelled | expired. What its deliveries say is newer than this. After `deadline` nothing more of it is sent.
    `gone`: those of the targets that were removed before they got what a one-shot session had for them; the store's to
    keep.
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
    reason: str = ""
    deadline: datetime | None = None
    gone: tuple[str, ...] = ()


FINAL = ("succeeded", "cancelled", "expired")
"""States that nothing changes any more."""
ENDED = (*FINAL, "partial", "failed")
"""What one-shot sessions end in; a dead delivery that is sent again takes the last two back."""


def ending(targets: int, got: int, failed: int) -> str:
    """How a one-shot session has ended of whose targets so many got it, and so many it was given up for."""
    if got == targets:
        return "succeeded"
    if got:
        return "partial"
    return "failed" if failed else "cancelled"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """When a one-shot session has arrived at one of its targets, by which delivery, and when the attempt that
    brought it began. Of a session with several deliveries to a target (a replay), the newest of them."""

    session_id: str
    target_namespace: str
    target_name: str
    delivery_id: str
    began_at: datetime
    arrived_at: datetime


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a session, as it is kept. `before` is empty for the first."""

    session_id: str
    before: str
    state: str
    reason: str
    at: datetime


class Verb(StrEnum):
    """What may be said to a session."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A word on a session: a line of the log, so that every daemon hears it in the same place. `place`: that line's;
    None for what follows from the time alone."""

    session_id: str
    verb: Verb
    place: Position | None
    reason: str
    at: datetime


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
    arrivals: tuple[Arrival, ...] = ()
    dropped_lanes: tuple[str, ...] = ()
    counters: Counters = Counters()
    obeyed: tuple[tuple[str, int], ...] = ()
    """Lane id and number of each command that is done."""
    deeds: tuple[Deed, ...] = ()
    """For the audit trail: what people did to lanes, deliveries and sessions here (log/audit.py)."""
