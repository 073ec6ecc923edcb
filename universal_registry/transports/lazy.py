"""A transport that is made at its first attempt: most commands send nothing, and HTTP libraries are dear to load."""

from __future__ import annotations

from collections.abc import Callable

from universal_registry.propagation.lanes.outcome import Outcome
from universal_registry.propagation.lanes.outcome_counts import Tally
from universal_registry.propagation.ports import Envelope, Transport


class LazyTransport:
    """Stands for the transport that `make` makes, and counts how its attempts end."""

    def __init__(self, name: str, make: Callable[[], Transport], tally: Tally) -> None:
        self.name = name
        self._make = make
        self._tally = tally
        self._made: Transport | None = None

    async def send(self, envelope: Envelope) -> Outcome:
        if self._made is None:
            self._made = self._make()
        self._tally.under_way += 1
        try:
            outcome = await self._made.send(envelope)
        finally:
            self._tally.under_way -= 1
        self._tally.count(outcome)
        return outcome

    async def close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            await made.close()
