"""The system's resolver, made safe for a loop: what hangs there keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""A host name -> its IP addresses as text. Raises OSError when it has none. What it answers is never believed."""
_MOST_LOOKUPS = 32


class SystemNames:
    """The system's resolver, in threads of its own: one look-up for all who wait for a name, some names at once.

    The loop's threads are not used, because names that hang would take them from the stores; and a thread that hangs
    does not keep the process from ending. `look_up`: host -> addresses, blocking.
    """

    def __init__(self, look_up: Callable[[str], list[str]] | None = None, most: int = _MOST_LOOKUPS) -> None:
        self._look_up = look_up or system_look_up
        self._room = asyncio.Semaphore(most)
        self._running: dict[str, asyncio.Future[list[str] | OSError]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        if host == "localhost" or host.endswith(".localhost"):
            return ("127.0.0.1", "::1")  # RFC 6761: never asked of anybody
        if host not in self._running:
            await self._room.acquire()
            if host in self._running:
                self._room.release()
            else:
                self._start(host)
        found = await asyncio.shield(self._running[host])
        if isinstance(found, OSError):
            raise OSError(found.strerror or str(found))
        return found

    def _start(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str] | OSError] = loop.create_future()
        self._running[host] = future

        def finish(found: list[str] | OSError) -> None:
            del self._running[host]
            self._room.release()
            future.set_result(found)

        def work() -> None:
            try:
                found: list[str] | OSError = self._look_up(host)
            except OSError as error:
                found = error
            except UnicodeError:
                found = OSError("it is no host name")
            try:
                loop.call_soon_threadsafe(finish, found)
            except RuntimeError:
                return  # the loop has ended, and with it all who waited

        threading.Thread(target=work, name=f"resolve {host}", daemon=True).start()


def system_look_up(host: str) -> list[str]:
    """What the system says, blocking. Raises OSError, UnicodeError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
