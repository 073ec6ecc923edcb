"""The commits of the propagation store, one at a time: what is decided while one is under way goes into the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from universal_registry.propagation.engine.outbox import Outbox
from universal_registry.propagation.lanes.lane import Settlements
from universal_registry.propagation.ports import LaneStore


class Holder(Protocol):
    """Whoever puts what it decides into the outbox."""

    outbox: Outbox


class Commits:
    """`outbox`: what is decided and not stored yet; each of the `holders` has the same. `refused`: the last commit was,
    so that nothing may be begun. `count`: how many there were."""

    def __init__(self, store: LaneStore) -> None:
        self.outbox = Outbox()
        self.holders: Sequence[Holder] = ()
        self.under_way = False
        self.refused = False
        self.count = 0
        self._store = store

    async def commit(self) -> Settlements | None:
        """Store all that is in the outbox; None when nothing is, or a commit is under way. Raises StorageUnavailable:
        then it is in the outbox still, behind which stands what was decided meanwhile."""
        if self.under_way or not self.outbox:
            return None
        outbox, self.under_way = self.outbox, True
        self._replace(Outbox(outbox))
        settlements = outbox.settlements()
        try:
            await self._store.apply(settlements)
            self.refused = False
            self.count += 1
        except BaseException:  # a cancelled commit too: what it held must not be forgotten
            self.refused = True
            self._replace(outbox.followed_by(self.outbox))
            raise
        finally:
            self.under_way = False
            self.outbox.before = None
        return settlements

    def _replace(self, outbox: Outbox) -> None:
        self.outbox = outbox
        for holder in self.holders:
            holder.outbox = outbox
