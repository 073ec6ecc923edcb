"""The newest revisions of the log, read once for all watchers, each frame made once for all who are told the same."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

import msgspec
import orjson

from universal_registry.log.cursor import Cursor
from universal_registry.registry.selector import Selector, selector_document
from universal_registry.registry.watch import (
    Frame,
    Passage,
    Showing,
    Sight,
    Told,
    changes_frame,
    event_document,
    judged,
    newest_of_each,
)

_MOST_KEPT = 16
"""Frames that are kept of a revision, for others who are told the same. There may be a thousand selectors about, each
of one watcher, and a ring has thousands of revisions."""


class View(NamedTuple):
    """A selector, and a text that is the same for equal ones."""

    selector: Selector
    name: str

    @classmethod
    def of(cls, selector: Selector) -> View:
        name = orjson.dumps(selector_document(selector), option=orjson.OPT_SORT_KEYS).decode()
        return cls(selector, sys.intern(name))  # of which there may be thousands


class Entry:
    """A whole revision, and the frames that were made of it."""

    __slots__ = ("_by_told", "_by_view", "cursor", "sights", "size", "views")

    def __init__(self, cursor: Cursor, passages: Sequence[Passage]) -> None:
        self.cursor = cursor
        self.sights = [Sight(passage) for passage in passages]
        # What a ring holds of it at most: the bodies, read, and as one frame.
        self.size = 500 + sum(2 * len(each.change.body or b"") + len(each.before or b"") + 500 for each in passages)
        self.views: list[View] = []
        """Some of those that were asked for."""
        self._by_view: dict[str, Frame | None] = {}
        self._by_told: dict[tuple[Told | None, ...], Frame | None] = {}

    def frame(self, view: View, showing: Showing) -> Frame | None:
        """What watchers with that view are told of it; None: nothing. Raises Corrupt."""
        try:
            return self._by_view[view.name]
        except KeyError:
            told = tuple(judged(view.selector, sight) for sight in self.sights)
            found = self._by_told[told] if told in self._by_told else self._made(told, showing)
            if len(self._by_told) < _MOST_KEPT:
                self._by_told[told] = found
            if len(self.views) < _MOST_KEPT:
                self._by_view[view.name] = found
                self.views.append(view)
            return found

    def _made(self, told: tuple[Told | None, ...], showing: Showing) -> Frame | None:
        pairs = [(word, sight) for word, sight in zip(told, self.sights, strict=True) if word is not None]
        if not pairs:
            return None
        return changes_frame(self.cursor, [event_document(word, sight, showing) for word, sight in pairs])


def fitting(lines: int, passages: Sequence[Passage], size: int, most: int) -> int:
    """How many lines to read next for about `size` bytes, after so many `lines` were read as these; at most `most`."""
    read = sum(len(each.change.body or b"") + len(each.before or b"") for each in passages)
    return max(1, min(most, 2 * lines, len(passages) * size // read if read else most))


def entries_of(passages: Sequence[Passage], incarnation: str) -> list[Entry]:
    """Lines in order as whole revisions."""
    made = []
    for revision, group in groupby(passages, key=lambda passage: passage.change.revision):
        lines = list(group)
        made.append(Entry(Cursor(incarnation, revision, lines[-1].change.hash[:4].hex()), lines))
    return made


def coalesced_frame(entries: Sequence[Entry], view: View, showing: Showing) -> Frame | None:
    """Several revisions told as one: each record as it was after the last. None: nothing of them is selected."""
    newest = newest_of_each(sight for entry in entries for sight in entry.sights)
    judgements = ((judged(view.selector, sight), sight) for sight in newest)
    told = [event_document(word, sight, showing) for word, sight in judgements if word is not None]
    return changes_frame(entries[-1].cursor, told, coalesced=True) if told else None


class RingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a ring holds at most: revisions, and bytes (about)."""

    revisions: int = 8192
    size: int = 16 << 20


class Ring:
    """Consecutive revisions `start` + 1 to `end`, the oldest of which go when there are too many."""

    def __init__(self, cursor: Cursor, limits: RingLimits) -> None:
        self._limits = limits
        self._entries: deque[Entry] = deque()
        self._size = 0
        self.start = cursor
        self.end = cursor

    def append(self, entry: Entry) -> None:
        """The revision after `end`."""
        assert entry.cursor.revision == self.end.revision + 1
        self._entries.append(entry)
        self._size += entry.size
        self.end = entry.cursor
        while len(self._entries) > 1 and (
            len(self._entries) > self._limits.revisions or self._size > self._limits.size
        ):
            gone = self._entries.popleft()
            self._size -= gone.size
            self.start = gone.cursor

    @property
    def views(self) -> Sequence[View]:
        """Some of what was asked for of the newest revision."""
        return self._entries[-1].views if self._entries else ()

    def has_after(self, revision: int) -> bool:
        """Whether whoever has read up to that revision can go on here."""
        return self.start.revision <= revision <= self.end.revision

    def after(self, revision: int) -> Iterator[Entry]:
        """The revisions after one that `has_after` is true of."""
        skipped = revision - self.start.revision
        if skipped * 2 <= len(self._entries):
            return islice(self._entries, skipped, None)
        # From the near end: a deque is slow to walk into.
        newest = list(islice(reversed(self._entries), len(self._entries) - skipped))
        return reversed(newest)
