"""A transport that is made at its first attempt: most commands send nothing, and HTTP libraries are dear to load."""

from __future__ import annotations

from collections.abc import Callable

from universal_registry.propagation.outcome import Outcome
from universal_registry.propagation.ports import Envelope, Transport


class LazyTransport:
    """Stands for the transport that `make` makes."""

    def __init__(self, name: str, make: Callable[[], Transport]) -> None:
        self.name = name
        self._make = make
        self._made: Transport | None = None

    async def send(self, envelope: Envelope) -> Outcome:
        if self._made is None:
            self._made = self._make()
        return await self._made.send(envelope)

    async def close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            await made.close()
