"""What streams carry: counted where it happens, stored every few seconds, never counted twice or forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.world import World, utc_text
from universal_registry.propagation.streams import Carried, StreamStore


class _Flow:
    __slots__ = ("messages", "milliseconds", "size", "timed")

    def __init__(self) -> None:
        self.messages = self.size = self.timed = 0
        self.milliseconds = 0.0


class Traffic:
    """The counts since the last `store`, and the way to the totals. `is_open`: streams that are open now, by name."""

    def __init__(self, store: StreamStore, world: World) -> None:
        self._store = store
        self._world = world
        self._flows: dict[tuple[str, str], _Flow] = {}
        self.is_open: dict[str, int] = {}

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
        """So many messages of so many bytes together have gone that way. `milliseconds`: each after so long."""
        flow = self._flows.get((stream, direction))
        if flow is None:
            flow = self._flows[stream, direction] = _Flow()
        flow.messages += messages
        flow.size += size
        if milliseconds is not None:
            flow.timed += messages
            flow.milliseconds += milliseconds * messages

    async def store(self) -> None:
        """Add what was counted to the totals. Raises StorageUnavailable: nothing is forgotten then."""
        flows, self._flows = self._flows, {}
        if not flows:
            return
        rows = [
            Carried(
                stream=stream,
                direction=direction,
                messages=flow.messages,
                size=flow.size,
                latency_ms=round(flow.milliseconds / flow.timed, 3) if flow.timed else None,
            )
            for (stream, direction), flow in sorted(flows.items())
        ]
        try:
            await self._store.add_carried(rows, utc_text(self._world.now()))
        except StorageUnavailable:
            for (stream, direction), flow in flows.items():
                average = flow.milliseconds / flow.timed if flow.timed else None
                self.count(stream, direction, flow.messages, flow.size, average)
            raise

    async def totals(self) -> Sequence[Carried]:
        """What was carried since the store was made, what is not stored yet included. Raises StorageUnavailable."""
        await self.store()
        return await self._store.carried()
