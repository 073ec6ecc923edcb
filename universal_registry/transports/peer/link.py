"""One link: a session, and the frames that it has to say. Whoever carries them takes them from here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from universal_registry.kernel.world import World
from universal_registry.sync.identity import Live
from universal_registry.sync.pairing import Paired
from universal_registry.sync.session import Phase, Session
from universal_registry.transports.peer.paths import MESSAGE_BYTES

Others = Callable[[], Iterable[Live]]


class Link:
    """The calls of a session one after the other, and its outbox. `others`: the sessions beside this one."""

    def __init__(self, peer: Paired, session: Session, world: World, others: Others) -> None:
        self.peer = peer
        self.session = session
        self._world = world
        self._others = others
        self._lock = asyncio.Lock()
        self._outbox: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._sign = asyncio.Event()
        self._closed = False
        self.is_told = False
        """Whether it was said why it is over."""
        self.heard_at = world.monotonic()
        self.frames_in = self.frames_out = self.bytes_in = self.bytes_out = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be said: the session has ended, and its last words are taken."""
        return self._closed or (self.session.phase is Phase.ENDED and not self._outbox)

    @property
    def live(self) -> Live | None:
        """Who is at the other end, while the session goes on."""
        return None if self._closed or self.session.phase is Phase.ENDED else self.session.live

    def heard(self) -> None:
        """The other side has just said something, if only that it is there."""
        self.heard_at = self._world.monotonic()
        self._sign.set()

    async def heard_again(self, seconds: float) -> None:
        """Until the other side says something more, or for so long."""
        self._sign.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._sign.wait()
        except TimeoutError:
            pass  # the caller sees it by `heard_at`

    async def open(self) -> None:
        """Say hello."""
        async with self._lock:
            self._say(await self.session.open())

    async def receive(self, frames: Sequence[bytes]) -> None:
        """Take frames in, durably. Raises what the store raises; the session has ended then."""
        for frame in frames:
            async with self._lock:
                self.frames_in += 1
                self.bytes_in += len(frame)
                self._say(await self.session.receive(frame, self._others()))

    async def woken(self) -> None:
        """Something was committed here."""
        if self.session.phase not in (Phase.OPENING, Phase.ENDED):
            async with self._lock:
                self._say(await self.session.woken())

    async def tick(self) -> None:
        """Now and then."""
        if self.session.phase not in (Phase.OPENING, Phase.ENDED):
            async with self._lock:
                self._say(await self.session.tick())

    def part(self) -> None:
        """Say goodbye: what is in the outbox may still be taken."""
        self._say(self.session.close())

    def close(self) -> None:
        """Say nothing more."""
        self._closed = True
        self._news.set()

    def nudge(self) -> None:
        """Let whoever waits for something to say come back at once: so that we see whether anybody does."""
        self._news.set()

    async def take(self, seconds: float) -> list[bytes]:
        """What is to be said, as much as goes into a message; waits for it. Nothing: the time is over, or the link."""
        if not self._outbox and not self.is_over:
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return []
        frames: list[bytes] = []
        size = 0
        while self._outbox and (not frames or size + len(self._outbox[0]) <= MESSAGE_BYTES):
            frames.append(self._outbox.popleft())
            size += len(frames[-1])
        self.frames_out += len(frames)
        self.bytes_out += size
        return frames

    def _say(self, frames: Sequence[bytes]) -> None:
        self._outbox.extend(frames)
        if frames or self.session.phase is Phase.ENDED:
            self._news.set()
