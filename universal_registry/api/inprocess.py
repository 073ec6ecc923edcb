"""The API in the caller's own process, as a Caller: the same requests and answers, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from universal_registry.api.http import Peer, PeerKind, Request, Response, request_from, whole_body
from universal_registry.client.http import Query, Reply, prepare, reply_or_raise

if TYPE_CHECKING:
    from universal_registry.api.dispatch import Api

_DRIVEN = ("/v1/-/propagate", "/v1/-/routes", "/v1/-/targets")
_SESSIONS = "/v1/-/sessions/"


class InProcess:
    """Passes requests to `answer` on an event loop of its own. For one thread, and outside of other loops.

    `shut`: called on that loop when the caller closes it.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Response]], shut: Callable[[], Awaitable[None]]) -> None:
        self._answer = answer
        self._shut = shut
        self._runner: asyncio.Runner | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """As every Caller's."""
        target, sent, data = prepare(path, query, json, body, headers)
        request = request_from(method, target, list(sent.items()), data, Peer(kind=PeerKind.INPROC))
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self._exchange(request))

    async def _exchange(self, request: Request) -> Reply:
        response = await self._answer(request)
        headers = {name.lower(): value for name, value in response.headers}
        return reply_or_raise(response.status, headers, await whole_body(response))

    def close(self) -> None:
        """End it; nothing that was acknowledged is lost."""
        runner, self._runner = self._runner, None
        if runner is not None:
            try:
                runner.run(self._end())
            finally:
                runner.close()

    async def _end(self) -> None:
        await self._shut()


class Opened(Protocol):
    """A registry that is open."""

    api: Api

    async def close(self) -> None: ...


class Drive(Protocol):
    """Runs the engine of one that is open for writing."""

    async def run(self, seconds: float) -> bool: ...

    async def stop(self) -> None: ...


class Embedded:
    """The registry of a command, opened when it is first needed and no further than that.

    `opens(writes=...)` opens it. `driver`: makes of it what tries, for at most `seconds`, the deliveries that are due;
    None: nothing is tried here.
    """

    def __init__(
        self, opens: Callable[..., Awaitable[Opened]], driver: Callable[[Any], Drive] | None, seconds: float
    ) -> None:
        self._opens = opens
        self._new_driver = driver
        self._seconds = seconds
        self._opened: Opened | None = None
        self._may_write = False
        self._driver: Drive | None = None

    async def answer(self, request: Request) -> Response:
        """What the API answers."""
        writes = request.method not in ("GET", "HEAD")
        opened = await self._open(writes=writes)
        if self._driver is not None and not writes:
            await self._driver.run(self._seconds)
        response = await opened.api.dispatch(request)
        driven = request.path in _DRIVEN or request.path.startswith(_SESSIONS)
        if self._new_driver and writes and response.status < 400 and driven:
            self._driver = self._driver or self._new_driver(opened)
            await self._driver.run(self._seconds)
        return response

    async def _open(self, *, writes: bool) -> Opened:
        if self._opened is not None and writes and not self._may_write:
            await self.close()
        if self._opened is None:
            self._opened, self._may_write = await self._opens(writes=writes), writes
        return self._opened

    async def close(self) -> None:
        """Let go of the store."""
        opened, driver, self._opened, self._driver = self._opened, self._driver, None, None
        try:
            if driver is not None:
                await driver.stop()
        finally:
            if opened is not None:
                await opened.close()
