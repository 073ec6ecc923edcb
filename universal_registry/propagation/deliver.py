"""The pipeline of an attempt, and the only place that knows the order of its steps: render, then sign. Pure.

Sealing for the wire will stand between the two: what is signed is exactly what is sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from universal_registry import __version__
from universal_registry.kernel.errors import Refused
from universal_registry.log.change import Change, Op
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.render import CONTENT_TYPE, render_event, render_state
from universal_registry.propagation.target import Target
from universal_registry.registry.record import Record
from universal_registry.security.signing import ID_HEADER, TIMESTAMP_HEADER, parse_secret, signed_headers

_FIXED_HEADERS = (("content-type", CONTENT_TYPE), ("user-agent", f"universal-registry/{__version__}"))


def body_of(
    change: Change,
    incarnation: str,
    record: Record | None = None,
    clear_spec: dict[str, Any] | None = None,
    payload: Any = None,
) -> bytes:
    """The body of a line in the one format built; the same for each target, so that a caller may render it once."""
    if change.op is Op.EVENT:
        return render_event(change, incarnation, payload)
    return render_state(change, incarnation, record, clear_spec)


def sign_and_address(delivery_id: str, body: bytes, target: Target, now: datetime, timeout: float) -> Envelope:
    """The request that carries the body to the target: signed for this attempt, under the id of the delivery."""
    if target.fault or target.url is None:
        raise Refused(f"target {target.name!r} cannot be sent to: {target.held}")
    stamp = int(now.timestamp())
    if target.secret is None:
        signed = {ID_HEADER: delivery_id, TIMESTAMP_HEADER: str(stamp)}
    else:
        signed = signed_headers([parse_secret(target.secret)], delivery_id, stamp, body)
    return Envelope(
        url=target.url,
        headers=(*_FIXED_HEADERS, *signed.items()),
        body=body,
        network=target.network,
        timeout=target.timeout or timeout,
        insecure_http=target.insecure_http,
    )
