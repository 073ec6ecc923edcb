"""The transports of a registry. Adapters are picked here.

Each is imported when something is first sent with it: most commands send nothing, and few registries use all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from universal_registry.kernel.world import World
from universal_registry.propagation.lanes.outcome_counts import Tally
from universal_registry.propagation.ports import Transport
from universal_registry.propagation.streams import Count
from universal_registry.transports.lazy import LazyTransport


def transports_of(world: World, tally: Tally, count: Count) -> Mapping[str, LazyTransport]:
    """What there is to send with, by name. `tally`: told how attempts end. `count`: told of messages on streams."""

    def webhook() -> Transport:
        from universal_registry.transports.webhook import WebhookTransport

        return WebhookTransport(world)

    def websocket() -> Transport:
        from universal_registry.transports.websocket import WebSocketTransport

        return WebSocketTransport(world, count=count)

    def nats() -> Transport:
        from universal_registry.transports.nats import NatsTransport

        return NatsTransport(world)

    made: dict[str, Callable[[], Transport]] = {"webhook": webhook, "websocket": websocket, "nats": nats}
    return {name: LazyTransport(name, make, tally) for name, make in made.items()}
