"""How deliveries flow to one target: in which order, which of them, how fast, and with what part of the slots."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from universal_registry.propagation.lanes.lane import Order
from universal_registry.propagation.lanes.token_bucket import Flow, rated


class Revisions(StrEnum):
    """Which revisions of a record are sent. LATEST: one that a newer one has overtaken on the way is passed over; an
    event never is."""

    EVERY = "every"
    LATEST = "latest"


class AtFault(StrEnum):
    """What becomes of a delivery whose payload the target does not take (400, 413, 422)."""

    DEAD = "dead"
    RETRY = "retry"


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """`rate`: deliveries a second, at most; None: no limit. `weight`: its part of the slots beside others, from 1."""

    order: Order = Order.PER_KEY
    revisions: Revisions = Revisions.EVERY
    rejected: AtFault = AtFault.DEAD
    rate: float | None = None
    weight: int = 1

    @property
    def flow(self) -> Flow | None:
        """The rate as the flow of a bucket."""
        return None if self.rate is None else rated(self.rate)
