"""What streams carry: counted where it happens, stored every few seconds, never counted twice or forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.world import World, utc_text
from universal_registry.propagation.streams import Carried, StreamStore


class Flow:
    """What one stream has carried one way since it was last stored."""

    __slots__ = ("messages", "milliseconds", "size", "timed")

    def __init__(self) -> None:
        self.messages = self.size = self.timed = 0
        self.milliseconds = 0.0

    def count(self, messages: int, size: int, milliseconds: float | None = None) -> None:
        """So many messages of so many bytes together have gone that way. `milliseconds`: each after so long."""
        self.messages += messages
        self.size += size
        if milliseconds is not None:
            self.timed += messages
            self.milliseconds += milliseconds * messages

    def take(self) -> Flow:
        """What was counted; it begins anew."""
        taken = Flow()
        taken.give_back(self)
        self.messages = self.size = self.timed = 0
        self.milliseconds = 0.0
        return taken

    def give_back(self, taken: Flow) -> None:
        """What was taken could not be stored."""
        self.messages += taken.messages
        self.size += taken.size
        self.timed += taken.timed
        self.milliseconds += taken.milliseconds


class Traffic:
    """The counts since the last `store`, and the way to the totals. `is_open`: streams that are open now, by name."""

    def __init__(self, store: StreamStore, world: World) -> None:
        self._store = store
        self._world = world
        self._flows: dict[tuple[str, str], Flow] = {}
        self.is_open: dict[str, int] = {}

    def flow(self, stream: str, direction: str) -> Flow:
        """Where to count what it carries that way; for as long as the stream is open."""
        flow = self._flows.get((stream, direction))
        if flow is None:
            flow = self._flows[stream, direction] = Flow()
        return flow

    def open_now(self) -> int:
        """Connections that are open now."""
        return sum(self.is_open.values())

    def opened(self, stream: str) -> None:
        """One more connection."""
        self.is_open[stream] = self.is_open.get(stream, 0) + 1

    def closed(self, stream: str) -> None:
        """One less."""
        left = self.is_open.get(stream, 0) - 1
        if left > 0:
            self.is_open[stream] = left
        else:
            self.is_open.pop(stream, None)

    def count(self, stream: str, direction: str, messages: int, size: int, milliseconds: float | None = None) -> None:
        """As `Flow.count`, of a stream that is not open here."""
        self.flow(stream, direction).count(messages, size, milliseconds)

    async def store(self) -> None:
        """Add what was counted to the totals. Raises StorageUnavailable: nothing is forgotten then."""
        taken = {key: flow.take() for key, flow in sorted(self._flows.items()) if flow.messages}
        self._flows = {key: flow for key, flow in self._flows.items() if key[0] in self.is_open}
        if not taken:
            return
        rows = [
            Carried(
                stream=stream,
                direction=direction,
                messages=flow.messages,
                size=flow.size,
                latency_ms=round(flow.milliseconds / flow.timed, 3) if flow.timed else None,
            )
            for (stream, direction), flow in taken.items()
        ]
        try:
            await self._store.add_carried(rows, utc_text(self._world.now()))
        except StorageUnavailable:
            for key, flow in taken.items():
                self.flow(*key).give_back(flow)
            raise

    async def totals(self) -> Sequence[Carried]:
        """What was carried since the store was made, what is not stored yet included. Raises StorageUnavailable."""
        await self.store()
        return await self._store.carried()
