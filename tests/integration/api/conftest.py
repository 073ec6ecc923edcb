"""The API over real stores in a temporary folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from universal_registry.api.auth import Auth
from universal_registry.api.context import Observed
from universal_registry.api.dispatch import Api
from universal_registry.api.http import Peer, PeerKind, Response, request_from, whole_body
from universal_registry.api.listening import ServerLimits
from universal_registry.api.server import Addresses, ApiServer
from universal_registry.client.http import prepare
from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.settings import EncryptionSettings, HistorySettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.observe.audit import PROPAGATION, REGISTRY, Audit
from universal_registry.observe.denials import Denials
from universal_registry.observe.figures import FiguresReader
from universal_registry.observe.health import Health, WorkerState, file_taken_away
from universal_registry.observe.readers import readers
from universal_registry.observe.streams import Traffic
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.lanes.lane import Position
from universal_registry.propagation.lanes.outcome_counts import Tally
from universal_registry.propagation.studio.exchange import StudioExchange
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.consumers import Consumers
from universal_registry.registry.key_control import KeyControl
from universal_registry.registry.service import RegistryService
from universal_registry.registry.tokens import Tokens
from universal_registry.security.cipher import Sealer
from universal_registry.security.pairing import PURPOSE, MachineKey
from universal_registry.security.tokens import hash_token, new_token
from universal_registry.storage.audit_sqlite import SqliteTrail
from universal_registry.storage.compaction import Compaction
from universal_registry.storage.compaction_sqlite import SqliteHistory
from universal_registry.storage.consumers_sqlite import SqliteConsumers
from universal_registry.storage.database import Database
from universal_registry.storage.keyfile import KeyFiles, load_or_create_key
from universal_registry.storage.keys_sqlite import SqliteKeys
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.streams_sqlite import SqliteStreams
from universal_registry.storage.studio_sqlite import SqliteStudio
from universal_registry.storage.sync_books import Books
from universal_registry.storage.sync_reviews import Reviews
from universal_registry.storage.sync_store import Replica
from universal_registry.storage.tokens_sqlite import SqliteTokens
from universal_registry.storage.writer import GroupWriter
from universal_registry.transports.peer import Links, Pairing, Status

INPROC = Peer(kind=PeerKind.INPROC)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops on which a server may run, where the loop's own ways matter."""
    found = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return found if item.path.name == "test_api_ways.py" else {"asyncio": asyncio.new_event_loop}


class NoEngine:
    """What control sees of an engine while none runs, as in a command without a daemon."""

    def wake(self) -> None:
        pass

    def positions(self) -> Mapping[str, Position]:
        return {}

    def look(self) -> None:
        """Nobody obeys here."""

    async def lag(self) -> int:
        return 0


class Stack:
    """Everything below the API, and the API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = SystemWorld()
        self.bugs: list[tuple[BaseException, str]] = []
        self.token = new_token(self.world)
        self.unready = ""
        self.workers: tuple[WorkerState, ...] = ()
        catalogue = load_catalogue()
        keyring = load_or_create_key(folder / "config" / "encryption.key", self.world, may_create=True)
        sealer = Sealer(keyring, self.world.secret_bytes(32))
        self.store = SqliteRegistry.open(folder / "registry.db", catalogue, self.world)
        self.writer = GroupWriter(self.store, catalogue)
        self.lanes_db = Database.open(folder / "propagation.db", "propagation")
        self.service = RegistryService(
            catalogue=catalogue,
            sealer=sealer,
            writer=self.writer,
            records=self.store,
            log=self.store,
            world=self.world,
        )
        lanes = SqliteLanes(self.lanes_db)
        self.control = PropagationControl(self.service, lanes, {}, NoEngine(), self.world, Settings(home=folder))
        trails = {REGISTRY: SqliteTrail(self.store.database), PROPAGATION: SqliteTrail(self.lanes_db)}
        self.keys = KeyControl(
            store=SqliteKeys(self.store, catalogue),
            facts=self.store,
            files=KeyFiles(folder / "config" / "encryption.key", self.world),
            sealer=sealer,
            world=self.world,
            settings=EncryptionSettings(),
            drain=self.writer.drain,
        )
        self.tokens = Tokens(SqliteTokens(self.store.database), self.world)
        self.audit = Audit(self.store, trails)
        self.denials = Denials(self.world, trails[REGISTRY].record)
        self.health = Health(
            head=self.store.head,
            troubles=(file_taken_away(folder / "registry.db"),),
            unready=lambda: self.unready,
            world=self.world,
            workers=lambda: self.workers,
        )
        books = Books(self.store, self.writer, catalogue, self.world)
        machine = MachineKey(sealer.derived_key(PURPOSE))
        self.links = Links(self.service, Replica(books), Reviews(books), lambda: machine, self.world)
        consumers = Consumers(SqliteConsumers(self.store.database), self.store, self.world)
        figures = FiguresReader(self.service, lanes, NoEngine(), self.health, Tally(), self.denials, store="sqlite")
        self.compaction = Compaction(
            self.store,
            SqliteHistory(self.store),
            self.world,
            HistorySettings(),
            lambda: readers(self.store, lanes, SqliteConsumers(self.store.database).consumers, figures.watches),
        )
        self.api = Api(
            service=self.service,
            control=self.control,
            health=self.health,
            observed=Observed(
                tokens=self.tokens,
                keys=self.keys,
                compaction=self.compaction,
                audit=self.audit,
                denials=self.denials,
                figures=figures,
                consumers=consumers,
                studio=StudioExchange(self.service, consumers, SqliteStudio(self.lanes_db), self.world),
                streams=Traffic(SqliteStreams(self.lanes_db), self.world),
                links=self.links,
                pairing=Pairing(self.links),
                link_status=Status(self.links),
            ),
            auth=Auth(uid=os.getuid(), admin_token_hash=hash_token(self.token), tokens=self.tokens),
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


@pytest.fixture(params=[True, False], ids=["short-way", "aiohttp"])
def short_way(request: pytest.FixtureRequest) -> bool:
    """Whether plain requests are answered without aiohttp: what a server does is the same on both ways."""
    return bool(request.param)


@pytest.fixture
async def serve(stack: Stack, tmp_path: Path, short_way: bool) -> AsyncIterator[Serve]:
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
            short_way=short_way,
        )
        addresses = await server.start()
        servers.append(server)
        return server, addresses

    yield start
    for server in servers:
        await server.stop(1)
