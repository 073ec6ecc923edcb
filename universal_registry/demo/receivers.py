"""Five receivers on loopback ports of their own, in a thread: they check every signature and remember what came."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from universal_registry.client.listen import Heard, Receiver, State, flaky
from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.world import World

T = TypeVar("T")
HOST = "127.0.0.1"


class Inbox:
    """One receiver. `state`: subject -> the newest (sequence, record) that came; `names` of lists as in the script."""

    def __init__(self, name: str, world: World, *, flaky_share: float = 0.0) -> None:
        self.name = name
        self.port = 0
        self.state: dict[str, tuple[str, dict[str, Any]]] = {}
        self.order: list[tuple[str, str]] = []
        self.arrived: dict[tuple[str, str], float] = {}
        self.repeated = self.refused = self.turned_away = 0
        self._world = world
        self._behaviour = flaky(flaky_share) if flaky_share else None
        self._receiver: Receiver | None = None
        self._secrets: list[str] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}/{self.name}"

    @property
    def events(self) -> int:
        """How many different events came."""
        return len(self.order)

    def trust(self, secret: str) -> None:
        """From now on take only what is signed with this secret. Takes effect at the next start."""
        self._secrets = [secret]

    async def start(self) -> None:
        """Listen; the second time on the same port."""
        self._receiver = Receiver(
            world=self._world, secrets=self._secrets, on_event=self._heard, behaviour=self._behaviour
        )
        _, self.port = await self._receiver.start(HOST, self.port)

    async def stop(self) -> None:
        """Die: connections are refused from now on."""
        if self._receiver is not None:
            await self._receiver.stop(0.0)
            self._receiver = None

    def _heard(self, heard: Heard) -> None:
        match heard.state:
            case State.REPEATED:
                self.repeated += 1
            case State.REFUSED:
                self.refused += 1
            case State.FAILED:
                self.turned_away += 1
            case State.RECEIVED:
                self._received(heard)

    def _received(self, heard: Heard) -> None:
        self.order.append((heard.subject, heard.sequence))
        self.arrived[heard.subject, heard.sequence] = self._world.monotonic()
        before = self.state.get(heard.subject)
        if before is None or before[0] < heard.sequence:
            self.state[heard.subject] = (heard.sequence, heard.data["record"])


class Receivers:
    """The thread in which the receivers live."""

    def __init__(self, inboxes: list[Inbox]) -> None:
        self.inboxes = inboxes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receivers", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the receivers' thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def start(self) -> None:
        """All listen. Raises Conflict."""
        for inbox in self.inboxes:
            self.do(inbox.start())

    def revive(self, inbox: Inbox) -> None:
        """A dead receiver listens again, on its old port. Raises Conflict when somebody took that."""
        try:
            self.do(inbox.start())
        except Conflict as error:
            raise Conflict(f"{inbox.name} cannot come back: {error.message}", hint="run the demo again") from None

    def close(self) -> None:
        """All stop, and so does the thread."""
        for inbox in self.inboxes:
            self.do(inbox.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()
