"""What propagation needs of the world below it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.propagation.lane import Attempt, Counters, Delivery, Lane, Session, Settlements
from universal_registry.propagation.outcome import Outcome
from universal_registry.security.addresses import Policy


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes for one attempt, and the limits under which they may be sent. `timeout`: seconds, for all.

    `insecure_http`: they may travel in clear beyond loopback.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    network: Policy
    timeout: float = 30.0
    insecure_http: bool = False


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


class LaneStore(Protocol):
    """The propagation store. `apply` is its only write besides taking ownership."""

    async def lanes(self) -> Sequence[Lane]: ...

    async def claim(self, owner: str, now: datetime, lease_until: datetime) -> Sequence[Lane]:
        """Take (or renew) all lanes that are free, expired or ours; a new owner raises the generation. On SQLite a new
        boot takes all. Rows that a dead owner left SENDING become PENDING with `crashes` + 1; at 3 they are dead."""
        ...

    async def apply(self, settlements: Settlements) -> None:
        """All of it in one durable commit. Lane `rows`, `dead` are kept true by the store itself."""
        ...

    async def due(self, lane_id: str, now: datetime, limit: int) -> Sequence[Delivery]:
        """Rows that may be tried now: PENDING, or WAITING with next_at <= now, in order of (revision, seq), none whose
        key has an earlier live row in that lane."""
        ...

    async def next_due(self) -> datetime | None:
        """The earliest next_at of a WAITING row."""
        ...

    async def blocked_keys(self, lane_id: str, keys: Collection[Key]) -> set[Key]:
        """Those of `keys` that have a live row in the lane."""
        ...

    async def depth(self) -> Depth: ...


class LaneQueries(Protocol):
    """Reads for people."""

    async def deliveries(
        self,
        *,
        lane_id: str | None = None,
        key: Key | None = None,
        session_id: str | None = None,
        states: Collection[str] = (),
        limit: int = 1000,
    ) -> Sequence[Delivery]: ...

    async def attempts(self, delivery_id: str) -> Sequence[Attempt]: ...

    async def sessions(self, session_id: str | None = None) -> Sequence[Session]: ...


class PropagationStore(LaneStore, LaneQueries, Protocol):
    """Both, as the engine holds them."""
