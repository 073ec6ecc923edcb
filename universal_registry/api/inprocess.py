"""The API in the caller's own process, as a Caller: the same requests and answers, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from universal_registry.api.http import Peer, PeerKind, Request, Response, request_from, whole_body
from universal_registry.client.http import Query, Reply, prepare, reply_or_raise


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
