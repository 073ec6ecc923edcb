"""What kills taught about a lane's window: no row is overtaken by a later line of its record, and the end of a daemon
is blamed only on what could be under way."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec.structs import replace

from universal_registry.log.change import Change, Op
from universal_registry.propagation.engine.window import Job, LaneRun
from universal_registry.propagation.lanes.lane import Delivery, DeliveryState, Lane, Mark, Position
from universal_registry.propagation.routing.target import Target
from universal_registry.security.addresses import Policy

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def a_lane() -> LaneRun:
    lane = Lane(
        lane_id="lane", target_uid="t", target_namespace="system", target_name="t", transport="webhook",
        incarnation="a" * 12, position=Position(0, 0),
    )  # fmt: skip
    target = Target(
        namespace="system", name="t", uid="t", revision=1, created_revision=1, transport="webhook",
        url="http://127.0.0.1:9/", secret=None, network=Policy.LOOPBACK, format="cloudevents", in_flight=None,
        timeout=None, paused=False, insecure_http=False,
    )  # fmt: skip
    return LaneRun(lane, target)


def delivery(name: str, revision: int, **changes: object) -> Delivery:
    made = Delivery(
        delivery_id=f"dlv_{revision}", lane_id="lane", session_id="r", route_uid="r", op="put", kind="alias",
        namespace="default", name=name, revision=revision, seq=0, created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    return replace(made, **changes)


def plan(run: LaneRun, names: Iterable[str]) -> None:
    """One line for each name, in revisions from 1."""
    for revision, name in enumerate(names, 1):
        change = Change(
            revision=revision, seq=0, op=Op.PUT, kind="alias", namespace="default", name=name, uid="u", generation=1,
            body=b"{}", commitment="", actor="uid:0", txn_id="", at="",
        )  # fmt: skip
        run.add(delivery(name, revision), change, Mark(Position(revision, 0), "00"))


def sent(job: Job | None) -> int | None:
    return job.delivery.revision if job else None


def start(run: LaneRun) -> Job:
    job = run.next_job(probe=False)
    assert job is not None
    return job


def test_a_later_line_waits_for_a_row_that_the_commit_made_of_an_earlier_one() -> None:
    run = a_lane()
    plan(run, ["x", "x", "y", "x"])
    held, done = start(run), start(run)
    assert (sent(held), sent(done)) == (1, 3)
    run.finish(done, None)
    _, rows = run.commit_point()  # 3 is done: 1 is under way and becomes a row, and so does 2; 4 stays in memory
    assert [(row.revision, row.state) for row in rows] == [(1, DeliveryState.SENDING), (2, DeliveryState.PENDING)]
    run.finish(held, None)
    assert run.next_job(probe=False) is None, "4 would overtake the row of 2"
    row = rows[1]
    assert not run.is_busy(row), "and the row of 2 does not wait for 4"
    run.claim([row], 2)
    run.due.append(row)
    retry = start(run)
    assert sent(retry) == 2
    assert run.next_job(probe=False) is None
    run.finish(retry, None)
    assert sent(start(run)) == 4


def test_what_is_dead_is_waited_for_no_longer() -> None:
    run = a_lane()
    plan(run, ["x", "x", "y", "x"])
    held, done = start(run), start(run)
    run.finish(done, None)
    _, rows = run.commit_point()
    run.finish(held, None)
    run.due.append(rows[1])
    run.finish(start(run), replace(rows[1], state=DeliveryState.DEAD))
    assert sent(start(run)) == 4


def test_a_row_waits_for_an_earlier_line_of_its_record() -> None:
    run = a_lane()
    plan(run, ["x"])
    assert run.is_busy(delivery("x", 9))
    assert not run.is_busy(delivery("y", 9))


def test_of_rows_over_which_a_daemon_ended_no_more_are_taken_than_can_be_under_way() -> None:
    run = a_lane()
    rows = [delivery(f"n{revision}", revision, crashes=int(revision % 2 == 0)) for revision in range(1, 9)]
    assert [row.revision for row in run.claim(rows, 2)] == [1, 2, 3, 4, 5, 7]
    run.due.extend(run.claiming)
    run.claiming = []
    assert run.claim([rows[5]], 2) == [], "two are still taken"
    first, second = start(run), start(run)
    run.finish(first, None)
    run.finish(second, None)
    assert [row.revision for row in run.claim([rows[5], rows[7]], 2)] == [6]
