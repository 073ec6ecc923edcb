"""The newest lines of the log as they were committed, so that those who follow it closely need not read them again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from universal_registry.log.change import Change

MOST_LINES = 1024
MOST_BYTES = 1 << 20
_revision = attrgetter("revision")


class KnownLines:
    """Whole revisions at the end of the log, without a gap: at most about MOST_LINES, and MOST_BYTES of bodies.

    A line never changes, but for what rotates keys: that makes all of them forgotten. Whether the log still ends with
    the last of them is for their owner to ask.
    """

    def __init__(self) -> None:
        self._lines: list[Change] = []
        self._bytes = 0

    @property
    def end(self) -> tuple[int, bytes] | None:
        """The revision and the chain hash of the last one."""
        return (self._lines[-1].revision, self._lines[-1].hash) if self._lines else None

    def after(self, revision: int, limit: int, upto: int | None) -> Sequence[Change] | None:
        """The lines after that revision, none beyond `upto`: all, or whole revisions of about `limit` lines, at least
        one revision when there is one. None when they are not all known."""
        lines = self._lines
        if not lines or lines[0].revision > revision + 1:
            return None
        first = bisect_right(lines, revision, key=_revision)
        end = len(lines) if upto is None else bisect_right(lines, upto, key=_revision)
        if end - first > limit:
            cut = max(lines[first + limit].revision - 1, lines[first].revision)
            end = bisect_right(lines, cut, key=_revision)
        return lines[first:end]

    def keep(self, lines: Sequence[Change]) -> None:
        """These have been committed. The oldest are forgotten."""
        if not lines:
            return
        if self._lines and lines[0].revision != self._lines[-1].revision + 1:
            self.forget()
        size = sum(len(line.body or b"") for line in lines)
        if size > MOST_BYTES or len(lines) > MOST_LINES:
            self.forget()
            return
        self._lines.extend(lines)
        self._bytes += size
        while len(self._lines) > MOST_LINES or self._bytes > MOST_BYTES:
            self._drop_half()

    def _drop_half(self) -> None:
        """The older half, to the end of its last revision: dropping one by one would move the list each time."""
        middle = self._lines[len(self._lines) // 2].revision
        end = bisect_right(self._lines, middle, key=_revision)
        del self._lines[:end]
        self._bytes = sum(len(line.body or b"") for line in self._lines)

    def forget(self) -> None:
        """Nothing is known any more."""
        self._lines.clear()
        self._bytes = 0
