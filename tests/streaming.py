"""A registry that serves streams, and a client of WebSockets that is not ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect, unix_connect

from universal_registry.api.dispatch import Api
from universal_registry.api.server import Addresses, ApiServer
from universal_registry.api.stream import StreamFront, StreamLimits
from universal_registry.api.tls import Tls
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.service import RegistryService
from universal_registry.runner.ports import Pulse
from universal_registry.runner.workers.streaming import StreamingWorker

LONG = 20.0


class Streaming:
    """A server with its streams. `worker`: what moves them."""

    def __init__(self, server: ApiServer, front: StreamFront, addresses: Addresses, worker: StreamingWorker) -> None:
        self.server = server
        self.front = front
        self.addresses = addresses
        self.worker = worker

    @asynccontextmanager
    async def client(self, **asked: Any) -> AsyncIterator[Talker]:
        """A connection over the Unix socket, as the user whose registry it is."""
        async with unix_connect(self.addresses.socket, "ws://localhost/v1/stream", max_size=None, **asked) as socket:
            yield Talker(socket)

    @asynccontextmanager
    async def over_tcp(self, token: str = "", path: str = "/v1/stream", **asked: Any) -> AsyncIterator[Talker]:
        """A connection over TCP."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= asked.pop("headers", {})
        scheme = "wss" if "ssl" in asked else "ws"
        uri = f"{scheme}://{self.addresses.tcp}{path}"
        async with connect(uri, additional_headers=headers, max_size=None, **asked) as socket:
            yield Talker(socket)


class Talker:
    """Messages on a connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, message_type: str, **more: Any) -> None:
        """Send a message. `start` is `from`."""
        if "start" in more:
            more["from"] = more.pop("start")
        await self.socket.send(json.dumps({"type": message_type, **more}))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next message, of one of these kinds if any are named; bookmarks are passed over."""
        async with asyncio.timeout(LONG):
            while True:
                heard: dict[str, Any] = json.loads(await self.socket.recv())
                if heard["type"] != "bookmark" or "bookmark" in kinds:
                    break
        assert not kinds or heard["type"] in kinds, heard
        return heard

    async def subscribed(self, **more: Any) -> None:
        """Subscribe, and hear that it was done."""
        await self.say("subscribe", **more)
        await self.hear("subscribed")

    async def asked(self, message_type: str, **more: Any) -> dict[str, Any]:
        """The answer to a request, on a connection without subscriptions."""
        await self.say(message_type, **more)
        return await self.hear("answer", "problem")

    async def names(self, count: int) -> list[str]:
        """The names of the records that the next so many changes are about."""
        found: list[str] = []
        while len(found) < count:
            heard = await self.hear("changes", "synced", "subscribed", "records")
            found += [each["name"] for each in heard.get("events", heard.get("records", ()))]
        return found


@asynccontextmanager
async def streaming(
    api: Api,
    service: RegistryService,
    folder: Path,
    *,
    tcp: bool = False,
    tls: Tls | None = None,
    limits: StreamLimits = StreamLimits(),  # noqa: B008
    **settings: Any,
) -> AsyncIterator[Streaming]:
    """The API on sockets, with streams, and the worker that moves them."""
    front = StreamFront(api, service, api.context.observed.streams, Settings(home=folder, **settings), limits=limits)
    listen = "127.0.0.1:0" if tcp or tls else ""
    socket = folder / "run" / "s.sock"
    server = ApiServer(api, socket_path=socket, listen=listen, short_folder=folder, streams=front, tls=tls)
    world = SystemWorld()
    worker, pulse = StreamingWorker(front, world), Pulse(world)
    service.on_commit(worker.on_commit)
    addresses = await server.start()
    running = asyncio.create_task(worker.run(pulse))
    try:
        yield Streaming(server, front, addresses, worker)
    finally:
        await server.stop(5.0)
        pulse.end()
        worker.alarm.ring()
        await running
