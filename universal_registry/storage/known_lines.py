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

    A line never changes, but for what rotates keys: that makes all of them forgotten. How far the log goes is for
    their owner to ask: they are kept when their COMMIT begins, since in the moment when it has succeeded and he does
    not know it yet, readers come.
    """

    def __init__(self) -> None:
        self._lines: list[Change] = []
        self._bytes = 0

    def hold(self, revision: int, chained: bytes) -> bool:
        """Whether that revision is one of them, with that chain hash: then a log that ends there holds all up to it."""
        at = bisect_right(self._lines, revision, key=_revision)
        return at > 0 and (self._lines[at - 1].revision, self._lines[at - 1].hash) == (revision, chained)

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
        """These are being committed. The oldest are forgotten."""
        if not lines:
            return
        if self._lines and lines[0].revision != self._lines[-1].revision + 1:
            self.forget()
        size = _bytes_of(lines)
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
        self._bytes -= _bytes_of(self._lines[:end])
        del self._lines[:end]

    def forget(self) -> None:
        """Nothing is known any more."""
        self._lines.clear()
        self._bytes = 0


def _bytes_of(lines: Sequence[Change]) -> int:
    return sum([len(line.body) for line in lines if line.body is not None])
