"""A watch as the body of an answer: lines, or server-sent events.

A watch that has told everything waits, and what happens next is written by `tell` straight to its connection, with
that of all others who wait: no task is woken for it. Whatever else there is (a list, a place behind the ring, a reader
who does not read, the end) is the watch's own to do, piece by piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from universal_registry.api.hand_out import Made, Shared, hand_out
from universal_registry.api.http import Pipe
from universal_registry.api.watch_hub import WatchHub
from universal_registry.api.watcher import Watcher
from universal_registry.kernel.errors import RegistryError
from universal_registry.registry.watch import Frame, FrameKind

_LOOK_SECONDS = 1.0


class Lines:
    """The watches of this process that wait for news. `callers`: as `Api.callers`."""

    def __init__(self, hub: WatchHub, callers: Callable[[], int]) -> None:
        self.hub = hub
        self.callers = callers
        self.waiting: set[LineWatch] = set()
        hub.on_advance(self._advanced)

    def _advanced(self) -> None:
        if self.waiting:
            hand_out(self.waiting)


class LineWatch:
    """One of them. `pieces` is its body; `through` is given what leads to its reader, once the answer has begun.

    `form`: the name of what `wire` makes of a frame. `heartbeat`: seconds of silence after which it says where it
    stands. `still`: whether the caller may still be told anything.
    """

    def __init__(
        self,
        lines: Lines,
        watcher: Watcher,
        wire: Callable[[Frame], bytes],
        *,
        form: str,
        heartbeat: float,
        still: Callable[[], bool],
    ) -> None:
        self._lines = lines
        self._watcher = watcher
        self._wire = wire
        self._form = form
        self._heartbeat = heartbeat
        self._still = still
        self._callers = -1
        self._pipe: Pipe | None = None
        self._called: asyncio.Future[None] | None = None
        self._has_told = False

    def through(self, pipe: Pipe) -> None:
        """What is written there goes behind the pieces that were taken so far."""
        self._pipe = pipe
        self._form = f"{self._form} {pipe.form}"

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, until either side ends it."""
        world = self._lines.hub.world
        silent_since = world.monotonic()
        try:
            while True:
                try:
                    frames = await self._watcher.next(wait=_LOOK_SECONDS if await self._wait() else 0.0)
                except RegistryError as error:  # the answer has begun: what went wrong is its last line
                    frames = [self._watcher.broken(error.message)]
                self._callers = self._lines.callers()
                if not self._still():
                    return  # a token that was revoked is told nothing any more
                now = world.monotonic()
                if self._has_told:
                    silent_since, self._has_told = now, False
                if len(frames) == 1 and frames[0].kind is FrameKind.BOOKMARK and now - silent_since < self._heartbeat:
                    continue
                silent_since = now
                yield b"".join(map(self._wire, frames))
                if self._watcher.is_over:
                    return
        finally:
            await self._watcher.close()

    async def _wait(self) -> bool:
        """Let `tell` go on for it, as long as it can. False: nothing else has come up within a second."""
        if self._pipe is None or not self._watcher.is_at_end or self._watcher.place is None:
            return True
        called = self._called = asyncio.get_running_loop().create_future()
        self._lines.waiting.add(self)
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await called
        except TimeoutError:
            return False
        finally:
            self._lines.waiting.discard(self)
            self._called = None
        return True

    def tell(self, made: Made) -> None:
        """As Reader. What it cannot do here, it leaves to `pieces`."""
        pipe, place = self._pipe, self._watcher.place
        if self._called is None or pipe is None:  # it has woken meanwhile
            return
        if place is None or self._callers != self._lines.callers() or not pipe.has_room:
            self._call()
            return
        found = made.get((self._form, place))
        if found is None:
            self._take(pipe, place, made)
        else:
            self._watcher.follow(found.leader, found.events)
            self._write(pipe, found.data)

    def _take(self, pipe: Pipe, place: tuple[int, int, str], made: Made) -> None:
        watcher = self._watcher
        try:
            frames = watcher.take()
        except RegistryError:  # `next` meets it again, and says so
            frames = None
        if frames:
            data = pipe.framed(b"".join(map(self._wire, frames)))
            if watcher.is_at_end:
                events = sum(frame.events for frame in frames)
                now = asyncio.get_running_loop().time()
                made[self._form, place] = Shared(watcher.stand, events, len(frames), data, now)
            self._write(pipe, data)
        if frames is None or not watcher.is_at_end:
            self._call()

    def _write(self, pipe: Pipe, data: bytes) -> None:
        pipe.write(data)
        self._has_told = True

    def _call(self) -> None:
        self._lines.waiting.discard(self)
        if self._called is not None and not self._called.done():
            self._called.set_result(None)
