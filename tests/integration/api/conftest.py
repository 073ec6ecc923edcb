"""The API over real stores in a temporary folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from universal_registry.api.auth import Auth
from universal_registry.api.dispatch import Api
from universal_registry.api.http import Peer, PeerKind, Response, request_from, whole_body
from universal_registry.api.server import Addresses, ApiServer, ServerLimits
from universal_registry.client.http import prepare
from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.observe.health import Health, file_taken_away
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.lane import Position
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.tokens import hash_token, new_token
from universal_registry.storage.database import Database
from universal_registry.storage.keyfile import load_or_create_key
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import GroupWriter

INPROC = Peer(kind=PeerKind.INPROC)


class NoEngine:
    """What control sees of an engine while none runs, as in a command without a daemon."""

    def wake(self) -> None:
        pass

    def positions(self) -> Mapping[str, Position]:
        return {}

    def lag(self) -> int:
        return 0


class Stack:
    """Everything below the API, and the API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = SystemWorld()
        self.bugs: list[tuple[BaseException, str]] = []
        self.token = new_token(self.world)
        self.unready = ""
        catalogue = load_catalogue()
        keyring = load_or_create_key(folder / "config" / "encryption.key", self.world, may_create=True)
        self.store = SqliteRegistry.open(folder / "registry.db", catalogue, self.world)
        self.writer = GroupWriter(self.store, catalogue)
        self.lanes_db = Database.open(folder / "propagation.db", "propagation")
        self.service = RegistryService(
            catalogue=catalogue,
            sealer=Sealer(keyring, self.world.secret_bytes(32)),
            writer=self.writer,
            records=self.store,
            log=self.store,
            world=self.world,
        )
        self.control = PropagationControl(
            self.service, SqliteLanes(self.lanes_db), {}, NoEngine(), self.world, Settings(home=folder)
        )
        self.health = Health(
            head=self.store.head,
            troubles=(file_taken_away(folder / "registry.db"),),
            unready=lambda: self.unready,
            world=self.world,
        )
        self.api = Api(
            service=self.service,
            control=self.control,
            health=self.health,
            auth=Auth(uid=os.getuid(), admin_token_hash=hash_token(self.token)),
            world=self.world,
            unexpected=lambda error, trace: self.bugs.append((error, trace)),
        )

    async def close(self) -> None:
        await self.writer.close()
        self.store.database.close()
        self.lanes_db.close()
        assert self.bugs == []

    def polls(self, count: int = 1) -> asyncio.Event:
        """Set once that many looks at the log are about to be followed by a wait."""
        begun, ticket, left = asyncio.Event(), self.api.wakeup.ticket, [count]

        def counted() -> asyncio.Event:
            left[0] -= 1
            if left[0] == 0:
                begun.set()
            return ticket()

        self.api.wakeup.ticket = counted  # type: ignore[method-assign]
        return begun

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Any = None,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        peer: Peer = INPROC,
    ) -> Response:
        """What the API answers, its body in one piece."""
        target, sent, data = prepare(path, query, json, body, headers)
        try:
            request = request_from(method, target, list(sent.items()), data, peer)
        except RegistryError as error:
            return self.api.problem(error)
        response = await self.api.dispatch(request)
        return Response(status=response.status, headers=response.headers, body=await whole_body(response))


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    made = Stack(tmp_path)
    yield made
    await made.close()


Serve = Callable[..., Any]


@pytest.fixture
async def serve(stack: Stack, tmp_path: Path) -> AsyncIterator[Serve]:
    """Start servers on the stack's API; they are stopped at the end."""
    servers: list[ApiServer] = []

    async def start(
        listen: str = "127.0.0.1:0", socket_path: Path | None = None, limits: ServerLimits | None = None
    ) -> tuple[ApiServer, Addresses]:
        server = ApiServer(
            stack.api,
            socket_path=socket_path or tmp_path / "run" / "ureg.sock",
            listen=listen,
            short_folder=tmp_path,
            limits=limits or ServerLimits(),
        )
        addresses = await server.start()
        servers.append(server)
        return server, addresses

    yield start
    for server in servers:
        await server.stop(1)
