"""Records that are changed here and at a peer by turns, faster than people do: two programs that each set it right.

Nothing is held for it: a write here would then replace what it was not shown. It is said, so that somebody stops one.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from universal_registry.kernel.ids import Key

MOST_TURNS = 10
WINDOW_SECONDS = 60.0
_MOST_RECORDS = 10_000
"""Of which the last turns are remembered."""


class _Record:
    __slots__ = ("side", "told_at", "turns")

    def __init__(self, side: str) -> None:
        self.side = side
        self.turns: deque[float] | None = None
        """When the last ones were; of most records there are none."""
        self.told_at: float | None = None


class Flaps:
    """`side`: who has changed a record, a peer's node, or empty: this registry. `now`: of a clock that only rises."""

    def __init__(self) -> None:
        self._records: OrderedDict[Key, _Record] = OrderedDict()
        self._tripped: dict[Key, str] = {}

    def changed(self, key: Key, side: str, now: float) -> None:
        """Somebody has changed it."""
        record = self._records.get(key)
        if record is None:
            self._records[key] = _Record(side)
            if len(self._records) > _MOST_RECORDS:
                self._records.popitem(last=False)
            return
        if record.side == side:
            return
        peer, record.side = side or record.side, side
        if record.turns is None:
            record.turns = deque(maxlen=MOST_TURNS + 1)
        record.turns.append(now)
        self._records.move_to_end(key)
        is_often = len(record.turns) > MOST_TURNS and now - record.turns[0] <= WINDOW_SECONDS
        if is_often and (record.told_at is None or now - record.told_at > WINDOW_SECONDS):
            record.told_at = now
            self._tripped[key] = peer

    def tripped(self) -> dict[Key, str]:
        """Those that went to and fro more than so often within a minute, each with a peer; each is told once a minute
        at most, and only here."""
        tripped, self._tripped = self._tripped, {}
        return tripped
