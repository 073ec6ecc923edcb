"""The same server over HTTP (MCP's Streamable HTTP), on loopback, with a token of the registry for each request."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from universal_registry.kernel.errors import RegistryError, Unauthenticated
from universal_registry.studio.access import Access, check_token
from universal_registry.studio.following import Push
from universal_registry.studio.server import make_server

PATH = "/mcp"
_BEARER = "Bearer "
Message = dict[str, Any]
App = Callable[[Message, Any, Any], Any]


async def serve_http(access: Access, listening: socket.socket, say: Callable[[str], None], *, read_only: bool) -> None:
    """Serve on a socket of loopback that listens already, until cancelled."""
    host = listening.getsockname()[0]
    push = Push(access, say)
    server = make_server(access, push, read_only=read_only)
    app = Guarded(server.streamable_http_app(streamable_http_path=PATH, host=host), access)
    config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, server_header=False)
    async with server.session_manager.run(), push.running():
        await _Server(config).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Signals are the command's, as in every command: the library would end the process by the signal itself."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Guarded:
    """Lets those in whose token the registry takes, and answers the others itself. What a token may do is judged by the
    registry, request by request: this only keeps strangers from sessions and from the push."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access
        self._turns = asyncio.Semaphore(4)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            try:
                token = _token(scope)
                async with self._turns:
                    await asyncio.to_thread(check_token, self._access, token)
            except RegistryError as error:
                await _refuse(error, send)
                return
        await self._app(scope, receive, send)


def _token(scope: Message) -> str:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    found = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
    if len(found) != 1 or not found[0].startswith(_BEARER):
        raise Unauthenticated("no token is given", hint="Authorization: Bearer TOKEN; ureg token add NAME makes one")
    return found[0].removeprefix(_BEARER)


async def _refuse(error: RegistryError, send: Any) -> None:
    status = error.status
    problem = {"title": type(error).__name__, "status": status, "code": error.code, "detail": error.message}
    body = json.dumps({**problem, "hint": error.hint, "retryable": error.retryable}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
