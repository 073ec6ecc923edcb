"""The lines of the newest group of writes, so that those who follow the log closely need not read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change, Op
from universal_registry.log.cursor import Cursor
from universal_registry.registry.fold import Folding
from universal_registry.registry.record import encode_record
from universal_registry.registry.watch import Passage

MOST_LINES = 256
MOST_BYTES = 1 << 20


class Newest:
    """What the writer is committing, and what he has just committed, as passages of the log. Nothing is known of a
    group with more than MOST_LINES lines or MOST_BYTES of bodies: it is read."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[], None]] = []
        """Called while the disk works at a commit. Without any, nothing is kept."""
        self._group: Folding | None = None
        self._is_there = False
        self._passages: Sequence[Passage] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(self.listeners)

    def on_coming(self, listener: Callable[[], None]) -> None:
        """Call `listener` while the disk works at a commit, for what is better done by then: `coming` tells what it is.
        Nothing of it counts unless that succeeds."""
        self.listeners.append(listener)

    def begin(self, group: Folding) -> None:
        """Its COMMIT begins: nobody may be told of it yet."""
        changes = group.changes
        small = len(changes) <= MOST_LINES and sum([len(each.body or b"") for each in changes]) <= MOST_BYTES
        self._group, self._is_there, self._passages = group if small else None, False, None

    def end(self) -> None:
        """Its COMMIT has succeeded."""
        self._is_there = True

    def forget(self) -> None:
        """It has failed; or whoever wanted it has seen it."""
        self._group = self._passages = None

    def coming(self) -> Sequence[Passage]:
        """The lines that are being committed, for those who prepare what they will say of them."""
        if self._group is None:
            return ()
        if self._passages is None:
            self._passages = _passages(self._group)
        return self._passages

    def after(self, place: Cursor) -> Sequence[Passage]:
        """The lines that were committed right behind that place, which says all of the history before it. Empty: not
        known here."""
        if self._group is None or not self._is_there or self._group.start.cursor != place:
            return ()
        return self.coming()


def _passages(group: Folding) -> list[Passage]:
    newest: dict[Key, Change] = {}
    found = []
    for change in group.changes:
        key, before = change.key, None
        if change.op is Op.PUT and change.prev_commitment is not None:
            if (line := newest.get(key)) is not None:
                before = line.body
            elif (record := group.firsts[key]) is not None:
                before = encode_record(record)
        if change.op is not Op.EVENT:
            newest[key] = change
        found.append(Passage(change, before))
    return found
