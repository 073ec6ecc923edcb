"""Lanes, deliveries, attempts and sessions as rows of the propagation store, and back. No SQL, no decisions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson

from universal_registry.propagation.lanes.lane import (
    Arrival,
    Attempt,
    Backfill,
    Breaker,
    Delivery,
    DeliveryState,
    Guard,
    Keep,
    Lane,
    Order,
    Position,
    Session,
    Transition,
    WaitsFor,
)
from universal_registry.propagation.lanes.lane_command import Action, Command

Row = Sequence[Any]
_guard = msgspec.json.Decoder(Guard)
_waits_for = msgspec.json.Decoder(WaitsFor)
_NO_GUARD = "{}"
_ALMOST_A_MILLISECOND = timedelta(microseconds=999)


def text(at: datetime) -> str:
    """The time as RFC 3339 in UTC, cut to milliseconds: such texts compare like the times."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _since(at: datetime | None) -> str | None:
    return None if at is None else text(at)


def _until(at: datetime | None) -> str | None:
    # A wait is rounded up: nothing is ever due before its time.
    return None if at is None else text(at + _ALMOST_A_MILLISECOND)


def _time(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)


def lane_row(lane: Lane) -> tuple[Any, ...]:
    """The columns of the query put_lane. The counts `rows` and `dead` are the store's own."""
    backfill = lane.backfill
    return (
        lane.lane_id, lane.target_uid, lane.target_namespace, lane.target_name, lane.transport, lane.owner,
        lane.generation, lane.incarnation, lane.position.revision, lane.position.seq,
        lane.hash8, *((backfill.route_uid, backfill.upto, backfill.at) if backfill else (None, None, None)),
        lane.breaker.value, lane.failures, lane.trips, _until(lane.open_until), _until(lane.pause_until),
        int(lane.paused), lane.held, lane.delivered, _since(lane.last_success_at), _since(lane.last_failure_at),
        lane.last_error, _NO_GUARD if lane.guard == Guard() else msgspec.json.encode(lane.guard).decode(),
        lane.order.value,
    )  # fmt: skip


def lane_from(row: Row) -> Lane:
    """A row of the query lanes."""
    return Lane(
        lane_id=row[0],
        target_uid=row[1],
        target_namespace=row[2],
        target_name=row[3],
        transport=row[4],
        owner=row[5],
        generation=row[6],
        incarnation=row[7],
        position=Position(row[8], row[9]),
        hash8=row[10],
        backfill=None if row[11] is None else Backfill(route_uid=row[11], upto=row[12], at=row[13]),
        breaker=Breaker(row[14]),
        failures=row[15],
        trips=row[16],
        open_until=_time(row[17]),
        pause_until=_time(row[18]),
        paused=bool(row[19]),
        held=row[20],
        delivered=row[21],
        last_success_at=_time(row[22]),
        last_failure_at=_time(row[23]),
        last_error=row[24],
        rows=row[25],
        dead=row[26],
        guard=Guard() if row[27] == _NO_GUARD else _guard.decode(row[27]),
        order=Order(row[28]),
    )


def delivery_row(delivery: Delivery) -> tuple[Any, ...]:
    """The columns of the query put_delivery."""
    return (
        delivery.delivery_id, delivery.lane_id, delivery.session_id, delivery.route_uid, delivery.op, delivery.kind,
        delivery.namespace, delivery.name, delivery.revision, delivery.seq, delivery.state.value, delivery.attempts,
        delivery.crashes, _until(delivery.next_at), delivery.reason, text(delivery.created_at),
        text(delivery.updated_at), delivery.keep.value,
        "" if delivery.waits_for is None else msgspec.json.encode(delivery.waits_for).decode(), delivery.replay_of,
    )  # fmt: skip


def delivery_from(row: Row) -> Delivery:
    """A row of any query that reads deliveries."""
    return Delivery(
        delivery_id=row[0],
        lane_id=row[1],
        session_id=row[2],
        route_uid=row[3],
        op=row[4],
        kind=row[5],
        namespace=row[6],
        name=row[7],
        revision=row[8],
        seq=row[9],
        state=DeliveryState(row[10]),
        attempts=row[11],
        crashes=row[12],
        next_at=_time(row[13]),
        reason=row[14],
        created_at=datetime.fromisoformat(row[15]),
        updated_at=datetime.fromisoformat(row[16]),
        keep=Keep(row[17]) if row[17] else Keep.NONE,
        waits_for=_waits_for.decode(row[18]) if row[18] else None,
        replay_of=row[19],
    )


def command_row(command: Command) -> tuple[Any, ...]:
    """The columns of the query give_command."""
    return (
        command.lane_id, command.action.value, command.actor, text(command.at), _until(command.until),
        command.delivery_id, command.reason,
    )  # fmt: skip


def command_from(row: Row) -> Command:
    """A row of the query commands."""
    return Command(
        number=row[0],
        lane_id=row[1],
        action=Action(row[2]),
        actor=row[3],
        at=datetime.fromisoformat(row[4]),
        until=_time(row[5]),
        delivery_id=row[6],
        reason=row[7],
    )


def attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    """The columns of the query add_attempt."""
    return (
        attempt.delivery_id, attempt.lane_id, attempt.number, text(attempt.at), attempt.outcome, attempt.status,
        float(attempt.milliseconds), attempt.reason,
    )  # fmt: skip


def attempt_from(row: Row) -> Attempt:
    """A row of the query attempts."""
    return Attempt(
        delivery_id=row[0],
        lane_id=row[1],
        number=row[2],
        at=datetime.fromisoformat(row[3]),
        outcome=row[4],
        status=row[5],
        milliseconds=row[6],
        reason=row[7],
    )


def session_row(session: Session) -> tuple[Any, ...]:
    """The columns of the query put_session; the targets are rows of their own."""
    return (
        session.session_id, session.mode, session.source, int(session.standing), session.state, session.revision,
        text(session.created_at), text(session.last_activity), session.reason, _until(session.deadline),
    )  # fmt: skip


def arrival_row(arrival: Arrival) -> tuple[Any, ...]:
    """What the query put_arrival takes."""
    times = text(arrival.began_at), text(arrival.arrived_at)
    return arrival.delivery_id, *times, arrival.session_id, arrival.target_namespace, arrival.target_name


def arrival_from(row: Row) -> Arrival:
    """The arrival of a row of the query arrivals."""
    session_id, namespace, name, delivery_id, began_at, arrived_at = row
    return Arrival(
        session_id=session_id,
        target_namespace=namespace,
        target_name=name,
        delivery_id=delivery_id,
        began_at=datetime.fromisoformat(began_at),
        arrived_at=datetime.fromisoformat(arrived_at),
    )


def session_target_rows(session: Session) -> list[tuple[Any, ...]]:
    """The columns of the query put_session_target, one row for each target."""
    parted = [target.partition("/") for target in session.targets]
    return [(session.session_id, namespace, name, place) for place, (namespace, _, name) in enumerate(parted)]


def session_from(row: Row) -> Session:
    """A row of the query session, sessions or open_sessions."""
    return Session(
        session_id=row[0],
        mode=row[1],
        source=row[2],
        targets=tuple(orjson.loads(row[3])),
        standing=bool(row[4]),
        state=row[5],
        revision=row[6],
        created_at=datetime.fromisoformat(row[7]),
        last_activity=datetime.fromisoformat(row[8]),
        reason=row[9],
        deadline=_time(row[10]),
        gone=tuple(orjson.loads(row[11])),
    )


def transition_from(row: Row) -> Transition:
    """A row of the query transitions."""
    return Transition(session_id=row[0], before=row[1], state=row[2], reason=row[3], at=datetime.fromisoformat(row[4]))
