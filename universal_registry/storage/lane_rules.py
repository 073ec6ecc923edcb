"""What every propagation store decides in the same way, whatever the engine below. No SQL, no I/O."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import SLOW_PHASE, RetrySettings
from universal_registry.propagation.lanes.lane import Delivery, DeliveryState, Settlements
from universal_registry.propagation.ports import Birth

CRASH_LIMIT = 3
NOTHING = Settlements()


def check_lanes_given(settlements: Settlements) -> None:
    """Raise Invalid for a row or an attempt whose lane is not among `settlements.lanes`: it could not be fenced."""
    used = {row.lane_id for row in settlements.upserts}
    used.update(lane_id for lane_id, _ in settlements.removed)
    used.update(attempt.lane_id for attempt in settlements.attempts)
    used.update(lane_id for lane_id, _ in settlements.obeyed)
    if missing := used - {lane.lane_id for lane in settlements.lanes}:
        raise Invalid(
            f"settlements hold rows of the lane {min(missing)!r} but not the lane",
            hint="give each row with its lane, so that its generation can be compared; `removed` is (lane, delivery)",
        )


def delivery_query(lane_id: str | None, key: Key | None, session_id: str | None, states: Collection[str]) -> str:
    """The name of the query that reads least for what is given."""
    if key is not None:
        return "deliveries_by_key"
    if session_id is not None:
        return "deliveries_by_session"
    if set(states) == {DeliveryState.DEAD}:
        return "deliveries_dead"
    return "deliveries_all" if lane_id is None else "deliveries_by_lane"


def retries(retry: RetrySettings) -> int:
    """How often a delivery is repeated before it is dead, both phases together."""
    if not retry.enabled:
        return 0
    return retry.max_retries + (len(SLOW_PHASE) if retry.slow_phase else 0)


def birth_text(birth: Birth) -> str:
    """How a store keeps its birth."""
    return msgspec.json.encode(birth).decode()


def birth_of(text: str) -> Birth:
    """The birth that a store kept."""
    return msgspec.json.decode(text, type=Birth)


def undone_query(
    session_id: str | None, lane_id: str | None, after: Delivery | None
) -> tuple[str, dict[str, str | int]]:
    """The name of the query for a page of undone rows, and what it takes, in order: `whose`, and the row before."""
    place = ("", -1, -1, "") if after is None else (after.lane_id, after.revision, after.seq, after.delivery_id)
    named: dict[str, str | int] = dict(zip(("lane", "revision", "seq", "id"), place, strict=True))
    if session_id is not None:
        return "undone_of_session", {"whose": session_id, **named}
    return "undone_of_lane", {"whose": lane_id or "", **named}
