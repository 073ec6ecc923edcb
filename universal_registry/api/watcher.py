"""One watcher: a cursor that takes frames."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from universal_registry.api.watch_ring import Entry, View, coalesced_frame, entries_of, fitting
from universal_registry.kernel.errors import CursorMismatch, RegistryError
from universal_registry.log.chain import GENESIS
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.log.horizon import Horizon, gone
from universal_registry.registry.selector import Selector
from universal_registry.registry.watch import Frame, FrameKind, mark, records_frame

if TYPE_CHECKING:
    from universal_registry.api.watch_hub import WatchHub

BEHIND, _BESIDE = 128, 16
"""Lines that a watcher behind the ring reads at once, while nobody writes, and beside writers."""
_SLICE = 4
"""It makes frames of a quarter of them before others have their turn."""
_PAUSE = 39.0
"""While there are writes, it rests so many times as long as it worked: it may fall back, they may not wait."""
_AT_HAND = 1 << 20
"""Bytes of the log that one behind the ring holds at once, about: it may stop taking at any time."""
_SKIPPED = 1000
_LOOKED_AT = 512
_PAGE = 200
TAKE_BYTES = 256 << 10
HEARTBEAT = 10.0


class Start(StrEnum):
    """Where a watch begins when it is not at a cursor. LIST: with what is there now."""

    NOW = "now"
    BEGINNING = "beginning"
    LIST = "list"


class Policy(StrEnum):
    """What is done for a watcher that falls behind. WAIT: it catches up, revision by revision. COALESCE: behind the
    ring it is told each record's newest state only, as frames that say so. DROP: once it is more than `most_lag`
    revisions behind, its last frame is an `end` with the cursor to go on from."""

    WAIT = "wait"
    COALESCE = "coalesce"
    DROP = "drop"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to watch. `start`: NOW, BEGINNING, LIST, or the cursor behind which to go on."""

    selector: Selector = Selector()
    start: Start | Cursor = Start.NOW
    policy: Policy = Policy.WAIT
    most_lag: int = 100_000


Place = tuple[int, int, str]


class Stand(NamedTuple):
    """Where a watcher is; `place`: for all who have come there with it."""

    cursor: Cursor
    told: int
    place: Place | None


class Watcher:
    """`next` gives frames, in order, none twice, none left out. Use by one task at a time; `close` it.

    `cursor`: behind everything that was handed out, and everything not selected before it.
    """

    __slots__ = (
        "__weakref__", "_asked", "_behind", "_commits", "_epoch", "_fits", "_hub", "_most", "_pages", "_place",
        "_synced", "_told", "_view", "_worked", "cursor", "is_over",
    )  # fmt: skip

    def __init__(self, hub: WatchHub, asked: Asked) -> None:
        """At its start; by `WatchHub.open`."""
        ring = hub.ring
        self.is_over = False
        self.cursor = asked.start if isinstance(asked.start, Cursor) else ring.end
        if asked.start is Start.BEGINNING:
            self.cursor = Cursor(ring.end.incarnation, 0, GENESIS[:4].hex())
        self._hub = hub
        self._asked = asked
        self._view = View.of(asked.selector)
        self._pages = hub.service.pages(asked.selector, size=_PAGE) if asked.start is Start.LIST else None
        self._behind: list[Entry] = []  # some hundred; a deque takes 760 bytes with nothing in it
        self._epoch = hub.epoch
        self._synced = False
        self._commits, self._worked, self._most = hub.commits, 0.0, BEHIND
        self._fits = _BESIDE
        """Lines that are about `_AT_HAND` bytes, as far as it has seen."""
        self._told = self.cursor.revision
        """The revision of the last cursor that the reader was given."""
        self._place: Place | None = None
        """As `place`, from when it was last asked for until it moves."""

    @property
    def lag(self) -> int:
        """Revisions that were not taken, as far as the hub has seen the log."""
        return max(0, self._hub.head - self.cursor.revision)

    async def close(self) -> None:
        """Let go. May be called twice."""
        self.is_over = True
        self._hub.forget(self)
        self._behind.clear()
        if self._pages is not None:
            await self._pages.aclose()

    @property
    def is_at_end(self) -> bool:
        """Whether it has taken all that the ring holds, and there is nothing more that anybody knows of."""
        return self._hub.is_current and self.cursor.revision >= self._hub.ring.end.revision

    def take(self, most_bytes: int = TAKE_BYTES) -> list[Frame] | None:
        """Frames that are at hand, of about `most_bytes` together, without waiting for anything. Empty: none; there may
        be more unless `is_at_end`. None: only `next` can go on (a list is under way, or it is behind the ring)."""
        if self.is_over:
            return []
        if self._hub.closing:
            return [self._end("the server stops")]
        if self._epoch != self._hub.epoch:
            return [self._end("the history was rolled back", resume=self._hub.ring.end)]
        ring, at = self._hub.ring, self.cursor.revision
        if self._pages is not None or self._behind or at < ring.start.revision:
            return None
        if at > ring.end.revision:  # it comes from a state that the ring has not seen yet
            self._hub.look_again()
            return []
        if (late := self._too_late()) is not None:
            return [late]
        return self._told_of(islice(ring.after(at), _LOOKED_AT), most_bytes)

    @property
    def place(self) -> Place | None:
        """What two watchers have in common that `take` gives the same frames to; None: only itself can say."""
        hub = self._hub
        if self.is_over or hub.closing or self._epoch != hub.epoch:
            return None
        if self._place is None and self._synced and not self._behind and self._asked.policy is not Policy.DROP:
            self._place = self.cursor.revision, self._told, self._view.name
        return self._place

    @property
    def stand(self) -> Stand:
        """Where it is now, for `follow`."""
        return Stand(self.cursor, self._told, self.place)

    def follow(self, leader: Stand, events: int) -> None:
        """Move to where another of the same place is after it took so many events: they are handed out here too."""
        self.cursor, self._told, self._place = leader
        self._hub.sent += events

    def _told_of(self, entries: Iterable[Entry], most_bytes: int) -> list[Frame]:
        frames: list[Frame] = []
        size, self._place = 0, None
        for entry in entries:
            try:
                frame = entry.frame(self._view, self._hub.service)
            except RegistryError:
                if frames:  # those are told first
                    break
                raise
            self.cursor = entry.cursor
            if frame is not None:
                frames.append(self._handed(frame))
                size += len(frame.data)
                if size >= most_bytes:
                    break
        return self._marked(frames)

    def bookmark(self) -> Frame:
        """Where it stands now, for the reader to go on from."""
        return self._handed(mark(FrameKind.BOOKMARK, self.cursor))

    async def next(self, wait: float = HEARTBEAT, most_bytes: int = TAKE_BYTES) -> list[Frame]:
        """The next frames, at least one; a bookmark when nothing selected has happened for `wait` seconds. Empty when
        the watch is over: after an `end` frame, or `close`.

        Raises StorageUnavailable: the watcher stands where it stood, so ask again; but within a list it is over then,
        and also when it is cancelled there.
        """
        until = self._hub.world.monotonic() + wait
        while not self.is_over:
            wakeup = self._hub.wakeup.ticket()  # before the look: what comes during it is not missed
            if self._asked.policy is Policy.DROP and not self.is_at_end:
                await self._hub.look_at_head()
            frames = await self._look(most_bytes)
            if frames:
                return frames
            left = until - self._hub.world.monotonic()
            if left <= 0:
                return [self.bookmark()]
            if self.is_at_end:
                await _wait(wakeup, min(left, 1.0))
            else:
                await asyncio.sleep(0)
        return []

    async def _look(self, most_bytes: int) -> list[Frame]:
        frames = self.take(most_bytes)
        if frames is None:
            return await (self._page() if self._pages is not None else self._catch_up(most_bytes))
        if frames or self.cursor.revision < self._hub.ring.end.revision:
            return frames
        await self._hub.advance()
        return self.take(most_bytes) or []

    async def _page(self) -> list[Frame]:
        assert self._pages is not None
        service = self._hub.service
        try:
            page = await anext(self._pages)
            line = None if page.next else await service.log.line(page.revision, 0)
        except BaseException:
            self.is_over = True  # the state that it was reading is gone: going on would leave the rest of it out
            raise
        frames = [records_frame(page.records, service)] if page.records else []
        if page.next is None:
            await self._pages.aclose()
            self._pages = None
            hashed = GENESIS if line is None else line.hash
            self.cursor = Cursor(self.cursor.incarnation, page.revision, hashed[:4].hex())
            self._synced, self._told = True, page.revision
            frames.append(mark(FrameKind.SYNCED, self.cursor))
        return frames

    async def _catch_up(self, most_bytes: int) -> list[Frame]:
        await self._give_way()
        began = self._hub.world.monotonic()
        try:
            return await self._read_behind(most_bytes)
        finally:
            self._worked = self._hub.world.monotonic() - began

    async def _give_way(self) -> None:
        seen, self._commits = self._commits, self._hub.commits
        self._most = min(self._fits, BEHIND if seen == self._commits else _BESIDE)
        await asyncio.sleep(0 if seen == self._commits else _PAUSE * self._worked)

    async def _read_behind(self, most_bytes: int) -> list[Frame]:
        upto = self._hub.ring.start.revision
        if not self._behind:
            if (late := self._too_late()) is not None:
                return [late]
            most = self._fits * 4 if self._asked.policy is Policy.COALESCE else self._most
            log = self._hub.service.log
            passages = await log.passages(self.cursor.revision, most, upto=upto, aside=True)
            horizon = await log.horizon()  # now: it never goes back
            if self.cursor.revision < horizon.lines:
                return [await self._gone(horizon)]
            self._behind.extend(entries_of(passages, self.cursor.incarnation))
            self._fits = fitting(self._fits, passages, _AT_HAND, BEHIND)
        most = len(self._behind) if self._asked.policy is Policy.COALESCE else max(1, self._most // _SLICE)
        entries = self._consecutive(most)
        if not entries:
            return [self._gap(self._behind[0].cursor.revision - 1 if self._behind else upto)]
        if self._asked.policy is Policy.COALESCE:
            return self._coalesced(entries)
        frames = self._told_of(entries, most_bytes)
        while entries and entries[-1].cursor.revision > self.cursor.revision:
            self._behind.insert(0, entries.pop())
        return frames

    def _consecutive(self, most: int) -> list[Entry]:
        """The next revisions, up to the first that is missing."""
        entries: list[Entry] = []
        while self._behind and len(entries) < most:
            if self._behind[0].cursor.revision != self.cursor.revision + len(entries) + 1:
                break
            entries.append(self._behind.pop(0))
        return entries

    def _coalesced(self, entries: list[Entry]) -> list[Frame]:
        frame = coalesced_frame(entries, self._view, self._hub.service)
        self.cursor, self._place = entries[-1].cursor, None
        return self._marked([] if frame is None else [self._handed(frame)])

    def _gap(self, last: int) -> Frame:
        first = self.cursor.revision + 1
        self.cursor = Cursor(self.cursor.incarnation, last, GENESIS[:4].hex())
        return self._handed(mark(FrameKind.GAP, self.cursor, first=first, last=last))

    # --- small things --------------------------------------------------------------------------------------------

    def _handed(self, frame: Frame) -> Frame:
        self._told, self._place = self.cursor.revision, None
        self._hub.sent += frame.events
        return frame

    def _marked(self, frames: list[Frame]) -> list[Frame]:
        """The frames, and behind them what there is to say of the place."""
        if not self._synced and self.is_at_end:
            self._synced = True
            frames.append(self._handed(mark(FrameKind.SYNCED, self.cursor)))
        elif self.cursor.revision - self._told >= _SKIPPED:
            frames.append(self.bookmark())
        return frames

    def _too_late(self) -> Frame | None:
        if self._asked.policy is not Policy.DROP or self.lag <= self._asked.most_lag:
            return None
        self._hub.dropped += 1
        return self._end(f"more than {self._asked.most_lag} revisions behind")

    def broken(self, why: str) -> Frame:
        """The last frame of a watch that an error ended."""
        return self._end(why)

    async def _gone(self, horizon: Horizon) -> Frame:
        """Compaction has gone past it: some of what it has not read is not kept any more."""
        error = gone(horizon, await self._hub.service.log.head())
        return self._end(error.message, resume=parse_cursor(error.data["cursor"]), code=error.code)

    def _end(self, why: str, *, resume: Cursor | None = None, code: str = CursorMismatch.code) -> Frame:
        """The last frame. `resume`: where to go on when its own cursor is of no use any more, as `code` says."""
        self.is_over = True
        self._hub.forget(self)
        if self._pages is not None:  # some of a state is nothing to go on from
            return mark(FrameKind.END, None, why=why, resync=True)
        said = {"code": code} if resume is not None else {}
        return mark(FrameKind.END, resume or self.cursor, why=why, resync=resume is not None, **said)


async def _wait(wakeup: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wakeup.wait()
    except TimeoutError:
        return
