"""One attempt from a line of the log to an outcome: read, render (once for all targets), sign, send."""

from __future__ import annotations

from collections.abc import Mapping

from universal_registry.kernel.errors import Corrupt, CursorMismatch, RegistryError
from universal_registry.log.change import Change, Op
from universal_registry.propagation.deliver import body_of, sign_and_address
from universal_registry.propagation.lane import Delivery
from universal_registry.propagation.outcome import Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope, Transport
from universal_registry.propagation.route import RouteHistory
from universal_registry.propagation.target import Target
from universal_registry.registry.record import decode_record
from universal_registry.registry.service import RegistryService

_MOST_BODY_BYTES = 2 << 20


class Sender:
    """Keeps the newest rendered bodies. `timeout`: seconds for one attempt, where the target sets none."""

    def __init__(
        self, service: RegistryService, routes: RouteHistory, transports: Mapping[str, Transport], timeout: float
    ) -> None:
        self.timeout = timeout
        self.incarnation = ""
        self._service = service
        self._routes = routes
        self._transports = transports
        self._bodies: dict[tuple[int, int, bool], bytes] = {}
        self._body_bytes = 0

    async def send(self, target: Target, delivery: Delivery, change: Change | None) -> Outcome:
        """Make one attempt; `change` is the line where it is at hand. What goes wrong becomes the outcome."""
        transport = self._transports.get(target.transport)
        if transport is None:
            return Failed(reason=f"transport {target.transport!r} is not built yet", status=None, milliseconds=0.0)
        try:
            envelope = await self._envelope(target, delivery, change)
        except (Corrupt, CursorMismatch) as error:
            return Rejected(reason=str(error), status=None, milliseconds=0.0)  # a repeat would end the same
        except RegistryError as error:
            return Failed(reason=str(error), status=None, milliseconds=0.0)
        return await transport.send(envelope)

    async def _envelope(self, target: Target, delivery: Delivery, change: Change | None) -> Envelope:
        if change is None:
            change = await self._service.log.line(delivery.revision, delivery.seq)
        if change is None:
            raise CursorMismatch(f"line {delivery.revision}.{delivery.seq} is no longer in the log")
        with_secrets = self._routes.secrets_allowed(delivery.route_uid)
        place = (change.revision, change.seq, with_secrets)
        body = self._bodies.get(place)
        if body is None:
            body = self._render(change, with_secrets)
            self._keep(place, body)
        now = self._service.world.now()
        return sign_and_address(delivery.delivery_id, body, target, now, self.timeout)

    def _keep(self, place: tuple[int, int, bool], body: bytes) -> None:
        self._bodies[place] = body
        self._body_bytes += len(body)
        while self._body_bytes > _MOST_BODY_BYTES and len(self._bodies) > 1:
            self._body_bytes -= len(self._bodies.pop(next(iter(self._bodies))))

    def _render(self, change: Change, with_secrets: bool) -> bytes:
        if change.op is Op.EVENT:
            return body_of(change, self.incarnation, payload=self._service.open_event(change).payload)
        if change.body is None:
            raise CursorMismatch(f"the body of line {change.revision}.{change.seq} is no longer in the log")
        record = decode_record(change.body)
        spec = self._service.reveal(record) if with_secrets else None
        return body_of(change, self.incarnation, self._service.shown(record), spec)
