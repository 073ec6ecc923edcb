"""What propagation needs of the world below it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from universal_registry.kernel.ids import Key
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
from universal_registry.propagation.lanes.outcome import Outcome
from universal_registry.security.addresses import Policy


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes for one attempt, and the limits under which they may be sent. `timeout`: seconds, for all.

    `insecure_http`: they may travel in clear beyond loopback. `subject`, `credential`: of NATS, what to publish to and
    as whom (`user:password`, or a token).
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    network: Policy
    timeout: float = 30.0
    insecure_http: bool = False
    subject: str = ""
    credential: str | None = None


class Transport(Protocol):
    """One way to send. Never raises for what the far side does; never retries; follows no redirect."""

    name: str

    async def send(self, envelope: Envelope) -> Outcome: ...

    async def close(self) -> None: ...


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """What the seed's two queries answer (live rows), and the other totals of the store."""

    queue_depth: int
    webhooks_pending: int
    waiting: int
    dead: int
    counters: Counters


class Birth(msgspec.Struct, frozen=True):
    """When the propagation store was made, and the newest revision of the registry then: more than 0 when what was
    delivered before is not known here."""

    revision: int
    at: datetime


class Claimed(msgspec.Struct, frozen=True):
    """What a daemon holds now. `share`: of how many lanes it is to keep at most; more are for others. `lanes`: all of
    its own; None: those that it knew of, and no other."""

    share: int
    lanes: Sequence[Lane] | None


class LaneStore(Protocol):
    """The propagation store. `apply` is its only write besides its birth and taking ownership."""

    async def begin(self, revision: int, now: datetime) -> bool:
        """Remember the birth of a store that is new, once. Whether it was."""
        ...

    async def birth(self) -> Birth | None:
        """None: it is not known, since an older program made the store."""
        ...

    async def lanes(self) -> Sequence[Lane]: ...

    async def claim(
        self, owner: str, now: datetime, lease_until: datetime, *, leaving: Collection[str] = (), holding: int = -1
    ) -> Claimed:
        """Be at work until `lease_until`, which holds the lanes of `owner`: without some of them (`leaving`), of which
        nothing may be under way, and with more as there are free ones and it has less than its share. A new owner
        raises the generation. `holding`: how many lanes it knows of, without those. A lease that ends now gives up all.

        On SQLite a new boot takes all. Rows that a dead owner left SENDING become PENDING with `crashes` + 1; at 3 they
        are dead."""
        ...

    async def apply(self, settlements: Settlements) -> None:
        """All of it in one durable commit. Lane `rows`, `dead` are kept true by the store itself."""
        ...

    async def due(self, lane_id: str, now: datetime, limit: int, *, untried: bool = False) -> Sequence[Delivery]:
        """Rows that may be tried now: PENDING, or WAITING with next_at <= now, in order of (revision, seq), none whose
        key has an earlier live row in that lane. `untried`: only those that were never tried."""
        ...

    async def next_due(self) -> datetime | None:
        """The earliest next_at of a WAITING row."""
        ...

    async def blocked_keys(self, lane_id: str, keys: Collection[Key]) -> set[Key]:
        """Those of `keys` that have a live row in the lane."""
        ...

    async def depth(self) -> Depth: ...

    async def rebase(self, now: datetime) -> None:
        """The clock has gone back to `now`: in the lanes that are ours, what waits since a later moment waits as long
        as it was to, from now."""
        ...


class LaneCommands(Protocol):
    """What people tell lanes, on its way to their owners. What is done is taken away by `apply` (`obeyed`)."""

    async def hasten(self, lane_id: str, now: datetime) -> None:
        """What waits in a lane that is ours for a moment after `now` is due now."""
        ...

    async def give(self, command: Command) -> None:
        """Store it, durably."""
        ...

    async def commands(self) -> Sequence[Command]:
        """What is still to be done, of all lanes, in the order in which it was given."""
        ...


class Unsent(NamedTuple):
    """The lowest revision of the deliveries of a lane that are still to be made, and of those that were given up."""

    live: int | None
    dead: int | None


class LaneQueries(Protocol):
    """Reads for people."""

    async def unsent(self) -> Mapping[str, Unsent]:
        """By lane id; only lanes that have such rows. Reads all rows."""
        ...

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
        """Rows for which all that is given holds. `since`: those that became what they are then, or later."""
        ...

    async def delivery(self, delivery_id: str) -> Delivery | None:
        """The row of one delivery; None: there is none, or it was delivered."""
        ...

    async def missed_event(self, lane_id: str, key: Key, before: Position) -> Position | None:
        """The newest event of a record before a place that the lane was to get and will not: dead or cancelled."""
        ...

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]: ...

    async def sessions(self, session_id: str | None = None) -> Sequence[Session]: ...

    async def oldest(self) -> Mapping[str, datetime]:
        """Lane id -> when its oldest delivery that has not ended was planned; only lanes that have one."""
        ...


class Looked(msgspec.Struct, frozen=True):
    """A delivery kept back after others, and whether it waits no longer."""

    lane_id: str
    position: Position
    released: bool


class SessionStore(Protocol):
    """What becomes of sessions, over all lanes."""

    async def undone(
        self, *, session_id: str | None = None, lane_id: str | None = None, after: Delivery | None = None, limit: int
    ) -> Sequence[Delivery]:
        """Live rows that nobody has under way, of a session or of a lane, by lane and in each by (revision, seq, id):
        those behind one that came before."""
        ...

    async def release(self, after: Position, limit: int, now: datetime) -> Sequence[Looked]:
        """Look at deliveries of our lanes that wait for earlier hops of a chain, from a place on, and let go of those
        that wait no longer."""
        ...

    async def open_sessions(self, after: str, limit: int) -> Sequence[tuple[Session, Sequence[str]]]:
        """One-shot sessions that have not ended, by id, each with the states of its targets (pending, retry, executed,
        failed, cancelled)."""
        ...

    async def arrivals(self, session_id: str) -> Sequence[Arrival]:
        """Where a one-shot session has arrived, in the order of its targets. What arrived under an older version of the
        program is not known."""
        ...

    async def transitions(self, session_id: str) -> Sequence[Transition]:
        """The steps of a session, oldest first."""
        ...


class PropagationStore(LaneStore, LaneQueries, LaneCommands, SessionStore, Protocol):
    """All of it, as the engine holds it."""
