"""A session on one axis of time: per target when it was planned, what was tried, and when it arrived. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from universal_registry.propagation.lanes.lane import Attempt
from universal_registry.propagation.ports import LaneQueries, SessionStore
from universal_registry.propagation.views.plain import moment_text

MOST = 200
"""So many deliveries of a session are shown with their attempts."""


class Store(LaneQueries, SessionStore, Protocol):
    """The part of the propagation store that this is read from."""


async def waterfall(store: Store, session: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Of a session as `one_session` answers it: `session`, `mode`, `source`, `standing`, `state`, `planned_at`, `now`,
    `targets`, each with `state`, `reason` and `deliveries`, and `more`: how many deliveries are left out.

    A delivery has `planned_at`, `attempts` (those that failed: `number`, `began_at`, `ended_at`, `outcome`, `status`,
    `reason`), `began_at` and `arrived_at` of the attempt that brought it, `next_at`, `state` and `reason`. Standing
    sessions have those that have not arrived: what has is not kept one by one.
    """
    rows = session["deliveries"]
    found: dict[str, list[dict[str, Any]]] = {each["target"]: [] for each in session["targets"]}
    for row in rows[:MOST]:
        attempts = await store.attempts(row["delivery"])
        found.setdefault(row["target"] or "", []).append(_undone(row, attempts))
    for arrival in await store.arrivals(session["session"]):
        address = f"{arrival.target_namespace}/{arrival.target_name}"
        if address in found:
            attempts = await store.attempts(arrival.delivery_id)
            times = (arrival.began_at, arrival.arrived_at)
            found[address].append(_arrived(arrival.delivery_id, session["created_at"], attempts, times))
    return {
        **{name: session[name] for name in ("session", "mode", "source", "standing", "state")},
        "planned_at": session["created_at"],
        "now": moment_text(now),
        "targets": [
            {**{name: each[name] for name in ("target", "state", "reason")}, "deliveries": found[each["target"]]}
            for each in session["targets"]
        ],
        "more": max(0, len(rows) - MOST),
    }


def _undone(row: dict[str, Any], attempts: Sequence[Attempt]) -> dict[str, Any]:
    same = {name: row[name] for name in ("delivery", "key", "revision", "state", "reason", "next_at")}
    times = {"planned_at": row["created_at"], "began_at": None, "arrived_at": None}
    return {**same, **times, "attempts": _failed(attempts)}


def _arrived(
    delivery: str, planned_at: str, attempts: Sequence[Attempt], times: tuple[datetime, datetime]
) -> dict[str, Any]:
    began_at, arrived_at = times
    return {
        "delivery": delivery,
        "key": None,
        "revision": None,
        "state": "delivered",
        "reason": "",
        "next_at": None,
        "planned_at": planned_at,
        "attempts": _failed(attempts),
        "began_at": moment_text(began_at),
        "arrived_at": moment_text(arrived_at),
    }


def _failed(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    return [
        {
            "number": each.number,
            "began_at": moment_text(each.at - timedelta(milliseconds=each.milliseconds)),
            "ended_at": moment_text(each.at),
            "outcome": each.outcome,
            "status": each.status,
            "reason": each.reason,
        }
        for each in attempts
    ]
