"""What is sent to a target for its own sake: a test event, and the challenge that shows whose the receiver is."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from universal_registry.kernel.errors import Refused
from universal_registry.kernel.settings import Settings
from universal_registry.propagation.lanes.outcome import Accepted, Outcome
from universal_registry.propagation.messages.cloudevent import target_event
from universal_registry.propagation.messages.formats import Body, write_event
from universal_registry.propagation.ports import Envelope, Transport
from universal_registry.propagation.routing.target import VALIDATED_AT, VALIDATED_URL, Target, parse_target, url_digest
from universal_registry.propagation.sending.packer import Packer
from universal_registry.propagation.verbs import documents
from universal_registry.propagation.views.plain import moment_text
from universal_registry.registry.record import Record
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.words import shown


class Trial:
    """One event to one target that stands in no log. Neither pause nor breaker is asked.

    Raises Refused for a target that cannot be sent to as it stands.
    """

    def __init__(
        self,
        service: RegistryService,
        transports: Mapping[str, Transport],
        record: Record,
        incarnation: str,
        settings: Settings,
    ) -> None:
        target = parse_target(record, service.reveal(record))
        if target is None:
            raise Refused(f"{record.name!r:.80} is no target any more")
        self._target: Target = target
        self._record = record
        self._service = service
        self._transports = transports
        self._incarnation = incarnation
        self._packer = Packer(service.world, lambda: service.signing_key, settings)

    def show(self) -> dict[str, Any]:
        """The request of a test event as it would go out now: `target` and `request`. Nothing is sent."""
        return {"target": self._target.address, "request": _request_view(self._envelope("test", {"test": True}))}

    async def test(self) -> dict[str, Any]:
        """Send a test event: `target`, `delivered`, `outcome`, `status`, `reason`, `milliseconds`."""
        return _view(self._target, await self._send(self._envelope("test", {"test": True})))

    async def validate(self, actor: Actor) -> dict[str, Any]:
        """Send a challenge. An answer that holds it marks the target as validated: `validated`, and all of `test`."""
        challenge = base64.urlsafe_b64encode(self._service.world.secret_bytes(24)).decode()
        outcome = await self._send(self._envelope("challenge", {"challenge": challenge}))
        answer = _view(self._target, outcome)
        answered = isinstance(outcome, Accepted) and challenge in outcome.answer
        if answer["delivered"] and not answered:
            answer["reason"] = "it took the challenge and did not answer with it"
        if answered:
            await self._mark(actor)
        return {**answer, "validated": answered}

    async def _mark(self, actor: Actor) -> None:
        """The mark is the record's: whoever moves the target to another URL has to validate it again."""
        target = self._target
        document = documents.target_document(target.name, url=None, delivery={})
        digest, at = url_digest(target.url or ""), moment_text(self._service.world.now())
        document["annotations"] = {VALIDATED_AT: at, VALIDATED_URL: digest}
        guarded = documents.guarded(document, self._record)
        await self._service.batch([guarded], actor=actor, message=f"target validate {target.name}"[:200])

    def _envelope(self, what: str, data: dict[str, Any]) -> Envelope:
        world = self._service.world
        event_id, at = world.new_id(), moment_text(world.now()) or ""
        event = target_event(self._incarnation, self._target.address, what, event_id, at, data)
        return self._packer.pack(f"{what}_{event_id}", self._written(event), self._target)

    def _written(self, event: dict[str, Any]) -> Body:
        return write_event(self._packer.shape(self._target), event, self._service.world)

    async def _send(self, envelope: Envelope) -> Outcome:
        transport = self._transports.get(self._target.transport)
        if transport is None:
            built = ", ".join(sorted(self._transports)) or "none"
            raise Refused(f"transport {shown(self._target.transport)} is not built yet", hint=f"built: {built}")
        return await transport.send(envelope)


def _view(target: Target, outcome: Outcome) -> dict[str, Any]:
    return {
        "target": target.address,
        "delivered": isinstance(outcome, Accepted),
        "outcome": outcome.__struct_config__.tag,
        "status": outcome.status,
        "reason": "" if isinstance(outcome, Accepted) else outcome.reason,
        "milliseconds": outcome.milliseconds,
    }


def _request_view(envelope: Envelope) -> dict[str, Any]:
    """The exact request: what a receiver sees, and needs to check its own verification against."""
    return {
        "method": "PUB" if envelope.subject else "POST",
        "url": envelope.url.rpartition("/")[0] + "/" + envelope.subject if envelope.subject else envelope.url,
        "headers": [list(header) for header in envelope.headers],
        "body": envelope.body.decode(),
    }
