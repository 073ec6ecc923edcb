"""The watch hub: one reader of the log for all watchers of this process.

A watcher is a cursor, not a queue: it holds a place in the log and takes what comes after it. Near the head that is in
the ring, which the hub fills by reading the log once; behind the ring a watcher reads batches of its own, off the loop.
Nothing is ever pushed into a watcher, so one that does not take costs nobody anything (W12).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from weakref import WeakSet

import msgspec

from universal_registry.api.context import Wakeup
from universal_registry.api.watch_ring import Entry, Ring, RingLimits, entries_of, fitting
from universal_registry.api.watcher import Asked, Start, Watcher
from universal_registry.kernel.errors import CursorMismatch, RegistryError
from universal_registry.kernel.world import World
from universal_registry.log.chain import GENESIS
from universal_registry.log.cursor import Cursor
from universal_registry.observe.figures import WatchFigures
from universal_registry.registry.service import RegistryService
from universal_registry.registry.watch import Passage

BATCH = 512
_LITTLE = 64 << 10
"""Bytes, as a ring counts them: about sixteen records of 500 bytes."""
_NONE: tuple[Sequence[Passage], Sequence[Entry]] = ((), ())
NET_SECONDS = 1.0
"""A wake-up that was missed costs at most so long (W14)."""


def _soon_told(entries: Sequence[Entry]) -> bool:
    """Whether it takes so little to tell of them that those who wrote them may wait for it."""
    return sum([entry.size for entry in entries]) <= _LITTLE


def _may_go_on(end: Cursor, head: Cursor) -> bool:
    """Whether a ring that ends there can be filled up to that head, as far as the two can say."""
    ahead = head.revision - end.revision
    return end.incarnation == head.incarnation and (0 < ahead < BATCH or end == head)


class WatchHub:
    """`open` makes watchers. `advance` fills the ring; whoever has come to its end calls it, and nobody else needs to.

    `on_commit` must be called after every commit, by whomever; `on_coming` may be, during those of this process. What
    it wrote, the ring takes at once from what the writer knows (`registry/newest.py`), and tells there and then.
    """

    def __init__(self, service: RegistryService, world: World, limits: RingLimits = RingLimits()) -> None:  # noqa: B008
        self.service = service
        self.world = world
        self.wakeup = Wakeup()
        self.epoch = 0
        """Counts the histories that were seen here: it rises when the log was rolled back under its readers."""
        self.closing = False
        """Whether the server stops."""
        self.head = 0
        """The newest revision that was seen."""
        self.commits = 0
        """Rises with every commit: who is in no hurry looks at it to give way to writers."""
        self.sent = 0
        self.dropped = 0
        self._limits = limits
        self._ring: Ring | None = None
        self._watchers: WeakSet[Watcher] = WeakSet()  # who lets go without a word is no watcher any more
        self._listeners: list[Callable[[], None]] = []
        self._lock = asyncio.Lock()
        self._is_due = True
        self._is_far = False
        self._fits = BATCH
        """Lines that it reads at once, so that they are not much more than a ring holds."""
        self._coming = _NONE
        """Lines that were about to be committed, and the revisions that were made of them."""
        self._looked = 0.0
        self._checked = 0.0

    # --- for watchers --------------------------------------------------------------------------------------------

    async def open(self, asked: Asked) -> Watcher:
        """A watcher at its start; where the beginning is not kept any more, one that asks for it gets the list. Raises
        CursorMismatch (with `data["cursor"]`) for a cursor of another history, CursorGone for one from before the log
        that is kept."""
        await self._reach_the_head()
        if asked.start is Start.BEGINNING and (await self.service.log.horizon()).lines:
            asked = msgspec.structs.replace(asked, start=Start.LIST)
        if isinstance(asked.start, Cursor):  # now: a history that ends after this look is noticed as the ring's
            await self.service.log.check_cursor(asked.start)
        watcher = Watcher(self, asked)
        self._watchers.add(watcher)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        """That watcher is closed."""
        self._watchers.discard(watcher)

    @property
    def is_watched(self) -> bool:
        """Whether there are watchers."""
        return bool(self._watchers)

    @property
    def ring(self) -> Ring:
        """The newest revisions. There is one as soon as there has been a watcher."""
        assert self._ring is not None
        return self._ring

    @property
    def is_current(self) -> bool:
        """Whether the ring ends where the log does, as far as anybody knows."""
        return not self._is_due

    def look_again(self) -> None:
        """The log is known to have grown."""
        self._is_due = True

    async def look_at_head(self) -> None:
        """Know how long the log is now, for those who must not be too far behind."""
        self.head = (await self.service.log.head()).revision

    async def _reach_the_head(self) -> None:
        async with self._lock:
            head = await self.service.log.head()
            self.head = head.revision
            ring = self._ring if self._watchers else None
            if ring is None or not _may_go_on(ring.end, head.cursor):
                # Nobody has kept it up. Whoever is in between reads on by himself, if it is the same history still.
                await self._leave(ring)
                self._ring = Ring(head.cursor, self._limits)
        end = None
        while end != self.ring.end and self.ring.end.revision < head.revision:  # or it was rolled back meanwhile
            end, self._is_due = self.ring.end, True
            await self.advance()

    async def _leave(self, ring: Ring | None) -> None:
        try:
            if ring is not None:
                await self.service.log.check_cursor(ring.end)
        except CursorMismatch:
            self.epoch += 1

    async def advance(self) -> None:
        """Read what the ring has not got yet, at most a batch. Cheap when there is nothing. A history that was rolled
        back begins a new `epoch`. Raises StorageUnavailable."""
        if not self._is_due and self.world.monotonic() - self._looked < NET_SECONDS:
            return
        ring = self.ring
        end = ring.end
        async with self._lock:
            if ring is not self._ring or ring.end != end:
                return  # somebody else has read meanwhile
            try:
                await self._read(ring)
            except CursorMismatch:
                self.epoch += 1
                self._ring = Ring((await self.service.log.head()).cursor, self._limits)
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    async def _read(self, ring: Ring) -> None:
        log, now = self.service.log, self.world.monotonic()
        if now - self._checked >= NET_SECONDS:
            await log.check_cursor(ring.end)  # once a second: is it still the same history?
            self._checked = now
        aside = self._is_far or now - self._looked > 2 * NET_SECONDS  # nobody has read on, so there may be much
        self._is_due, self._looked = False, now  # before the look: what is committed during it makes it due again
        try:
            passages = await log.passages(ring.end.revision, self._fits, aside=aside)
        except BaseException:
            self._is_due = True
            raise
        if aside:  # nobody who reads on all the time comes near the horizon
            await log.check_cursor(ring.end)
        for entry in entries_of(passages, ring.end.incarnation):
            before = entry.cursor.revision - 1
            if before != ring.end.revision:  # it states the gap to each watcher, who finds it on his own way
                ring = self._ring = Ring(Cursor(ring.end.incarnation, before, GENESIS[:4].hex()), self._limits)
            ring.append(entry)
        self.head = max(self.head, ring.end.revision)
        self._is_far = len(passages) >= self._fits
        self._is_due = self._is_due or self._is_far
        self._fits = fitting(self._fits, passages, self._limits.size // 2, BATCH)

    # --- for others ----------------------------------------------------------------------------------------------

    def on_coming(self) -> None:
        """The log is about to grow: make of it, while the disk works, what was asked for of the newest revision."""
        ring = self._ring
        if ring is None or not self._watchers or not ring.views:
            return
        passages = self.service.newest.coming()
        entries = entries_of(passages, ring.end.incarnation)
        self._coming = passages, entries
        if _soon_told(entries):
            with suppress(RegistryError):  # who is told meets it again
                for entry in entries:
                    for view in ring.views:
                        entry.frame(view, self.service)

    def on_commit(self) -> None:
        """The log may have grown. Tells of it what the writer knows, and wakes whoever waits."""
        self.commits += 1
        was_due, self._is_due = self._is_due, True
        if entries := self._take_newest():
            self._is_due = was_due
            if _soon_told(entries):
                self._tell()
            else:  # behind the answers to those who wrote it
                asyncio.get_running_loop().call_soon(self._tell)
        self.wakeup.notify()

    def _take_newest(self) -> Sequence[Entry]:
        """Take what was just written here, if the ring ends where that begins."""
        ring = self._ring
        if ring is None or not self._watchers or self._lock.locked():  # somebody reads on
            return ()
        passages = self.service.newest.after(ring.end)
        coming, entries = self._coming
        self._coming = _NONE
        if passages is not coming:
            entries = entries_of(passages, ring.end.incarnation)
        for entry in entries:
            ring.append(entry)
        self.head = max(self.head, ring.end.revision)
        return entries

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the ring may have grown: for fronts that take for many watchers in one go."""
        self._listeners.append(listener)

    def close(self) -> None:
        """The server stops: every watcher gets an `end` frame, with its cursor."""
        self.closing = True
        self.wakeup.close()
        self._tell()

    def figures(self) -> WatchFigures:
        """How the watchers do."""
        slowest = min((each.cursor.revision for each in self._watchers), default=None)
        return WatchFigures(watchers=len(self._watchers), slowest=slowest, sent=self.sent, dropped=self.dropped)
