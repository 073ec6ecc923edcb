"""What every propagation store decides in the same way, whatever the engine below. No SQL, no I/O."""

from __future__ import annotations

from collections.abc import Collection

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import SLOW_PHASE, RetrySettings
from universal_registry.propagation.lane import Control, DeliveryState, Settlements

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


def control_mark(control: Control, incarnation: str) -> str:
    """How a store remembers that it has done the word: "incarnation:place"; empty for what is no line of the log."""
    return "" if control.place is None else f"{incarnation}:{control.place.packed}"


def place_of_mark(mark: str, incarnation: str) -> int:
    """The place of a mark, packed; 0 when it is of another history, or none."""
    whose, _, place = mark.partition(":")
    return int(place) if whose == incarnation else 0
