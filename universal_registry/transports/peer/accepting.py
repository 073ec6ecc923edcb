"""The side of a link that is connected to. Each message is opened before anything is done for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from universal_registry.kernel.errors import Conflict, RegistryError
from universal_registry.security.pairing import Keys, open_numbered, seal_numbered
from universal_registry.transports.peer.link import Link
from universal_registry.transports.peer.paths import POLL_SECONDS, packed, unpacked


class Accepting:
    """A link that a peer has opened. It sends one message after the other, and beside that waits for ours; each may
    come twice, when its answer was lost, and is then answered as before."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self.link = link
        self._keys = keys
        self._sent = -1
        self._sent_answer = b""
        self._polled = -1
        self._polled_answer = b""
        self._sending, self._polling = asyncio.Lock(), asyncio.Lock()
        self.is_proven = False
        """Whether the peer has said anything under the keys: only then is it he, and not somebody who repeats him."""

    async def sent(self, message: bytes, first: Callable[[], Awaitable[None]]) -> bytes:
        """Take a message in; the answer says that it was. `first`: done before the first. Raises VerifyError, Conflict,
        and what the store raises."""
        number, data = open_numbered(self._keys.sent, message)
        async with self._sending:
            if number == self._sent:
                return self._sent_answer
            self._check(number, self._sent)
            self.link.heard()
            if not self.is_proven:
                await first()
                self.is_proven = True
            try:
                await self.link.receive(unpacked(data))
            except RegistryError:
                self.link.close()
                raise
            self._sent, self._sent_answer = number, seal_numbered(self._keys.sent_answer, number, b"")
            return self._sent_answer

    async def polled(self, message: bytes) -> bytes:
        """What we have to say, as soon as there is something. Raises VerifyError, Conflict."""
        number, _ = open_numbered(self._keys.polled, message)
        if number > self._polled + 1:
            self._check(number, self._polled)
        self.link.nudge()  # a poll that still waits is of a connection that was lost
        async with self._polling:
            if number == self._polled:
                return self._polled_answer
            self._check(number, self._polled)
            self.link.heard()
            frames = await self.link.take(POLL_SECONDS)
            self._polled, self._polled_answer = number, seal_numbered(self._keys.polled_answer, number, packed(frames))
            return self._polled_answer

    @staticmethod
    def _check(number: int, last: int) -> None:
        if number != last + 1:
            raise Conflict(f"message {number} of a link comes after {last}", hint="open the link anew")
