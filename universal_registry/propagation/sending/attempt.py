"""One attempt from a line of the log to an outcome: read, render (once for all targets), sign, send."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from universal_registry.kernel.errors import (
    Corrupt,
    CursorMismatch,
    Invalid,
    Refused,
    RegistryError,
    StorageUnavailable,
)
from universal_registry.log.change import Change, Op
from universal_registry.propagation.lanes.lane import Delivery
from universal_registry.propagation.lanes.outcome import Failed, Outcome, Rejected
from universal_registry.propagation.messages.cloudevent import Event
from universal_registry.propagation.messages.formats import Body, Shape, write_event
from universal_registry.propagation.ports import Envelope, Transport
from universal_registry.propagation.routing.plan import decoded
from universal_registry.propagation.routing.route import RouteHistory
from universal_registry.propagation.routing.target import Target
from universal_registry.propagation.sending.packer import Packer, event_of
from universal_registry.registry.service import RegistryService

_MOST_BODY_BYTES = 2 << 20


class Sender:
    """Keeps the newest rendered bodies. `packer`: seals and signs them."""

    def __init__(
        self, service: RegistryService, routes: RouteHistory, transports: Mapping[str, Transport], packer: Packer
    ) -> None:
        self.packer = packer
        self.incarnation = ""
        self._service = service
        self._routes = routes
        self._transports = transports
        self._bodies: dict[tuple[int, int, bool, Shape], Body] = {}
        self._body_bytes = 0

    async def send(self, target: Target, delivery: Delivery, change: Change | None, gap: str = "") -> Outcome:
        """Make one attempt; `change` is the line where it is at hand. What goes wrong becomes the outcome. `gap`: the
        sequence of the event before this one that the target will not get. Raises StorageUnavailable: nothing was sent.
        """
        transport = self._transports.get(target.transport)
        if transport is None:
            reason = f"transport {target.transport!r} is not built yet"
            return Failed(reason=reason, status=None, milliseconds=0.0, setup=True)
        try:
            envelope = await self._envelope(target, delivery, change)
            if gap:
                envelope = replace(envelope, headers=(*envelope.headers, ("gap-after", gap)))
        except (Corrupt, CursorMismatch, Invalid) as error:
            return Rejected(reason=str(error), status=None, milliseconds=0.0)  # a repeat would end the same
        except StorageUnavailable:
            raise
        except RegistryError as error:
            refused = isinstance(error, Refused)
            return Failed(reason=str(error), status=None, milliseconds=0.0, setup=refused)
        return await transport.send(envelope)

    async def _envelope(self, target: Target, delivery: Delivery, change: Change | None) -> Envelope:
        if change is None:
            change = await self._service.log.line(delivery.revision, delivery.seq)
        if change is None:
            raise CursorMismatch(f"line {delivery.revision}.{delivery.seq} is no longer in the log")
        # What the route allows, and only to a target that seals: secrets never leave in clear.
        with_secrets = self._routes.secrets_allowed(delivery.route_uid) and self.packer.may_hold_secrets(target)
        shape = self.packer.shape(target, with_secrets=with_secrets)
        place = (change.revision, change.seq, with_secrets, shape)
        body = self._bodies.get(place)
        if body is None:
            body = write_event(shape, self._render(change, with_secrets), self._service.world)
            self._keep(place, body)
        envelope = self.packer.pack(delivery.delivery_id, body, target, with_secrets=with_secrets)
        if not delivery.replay_of:
            return envelope
        return replace(envelope, headers=(*envelope.headers, ("replay-of", delivery.replay_of)))

    def _keep(self, place: tuple[int, int, bool, Shape], body: Body) -> None:
        self._bodies[place] = body
        self._body_bytes += len(body.content)
        while self._body_bytes > _MOST_BODY_BYTES and len(self._bodies) > 1:
            self._body_bytes -= len(self._bodies.pop(next(iter(self._bodies))).content)

    def _render(self, change: Change, with_secrets: bool) -> Event:
        if change.op is Op.EVENT:
            return event_of(change, self.incarnation, payload=self._service.open_event(change).payload)
        if change.body is None:
            raise CursorMismatch(f"the body of line {change.revision}.{change.seq} is no longer in the log")
        record = decoded(change.body)
        spec = self._service.reveal(record) if with_secrets else None
        return event_of(change, self.incarnation, self._service.shown(record), spec)
