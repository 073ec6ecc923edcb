"""What every propagation store does with sessions: words on them, hops of chains, their steps, and the seed's names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pgserver
import pytest
from msgspec.structs import replace

from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.lane import (
    Arrival,
    Delivery,
    DeliveryState,
    Keep,
    Lane,
    Position,
    Session,
    Settlements,
    WaitsFor,
)
from universal_registry.propagation.ports import PropagationStore
from universal_registry.storage.database import Database
from universal_registry.storage.lanes_postgres import PgLanes
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.postgres import PgDatabase

Store = PropagationStore
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEASE = NOW + timedelta(minutes=1)
PENDING, SENDING, WAITING, DEAD, CANCELLED = DeliveryState
HERE = "0123456789ab"
_BEGINNING = Position(0, -1)
Opener = Callable[[Path], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Store]:
    database = Database.open(folder / "lanes.db", "propagation")
    try:
        yield SqliteLanes(database)
    finally:
        database.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Store]:
    world = SystemWorld()
    database = await PgDatabase.open(pgserver.database_of(folder), "propagation", world)
    try:
        yield PgLanes(database, world)
    finally:
        await database.close()


ENGINES: dict[str, Opener] = {"sqlite": sqlite, "postgres": postgres}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Opener:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    return ENGINES[request.param]


@pytest.fixture
async def store(engine: Opener, tmp_path: Path) -> AsyncIterator[Any]:
    async with engine(tmp_path) as opened:
        yield opened


def lane(name: str = "one", **changes: Any) -> Lane:
    fields = {
        "lane_id": f"lane-{name}",
        "target_uid": f"uid-{name}",
        "target_namespace": "system",
        "target_name": name,
        "transport": "webhook",
        "owner": "boot-1",
        "generation": 1,
        "incarnation": HERE,
        "position": Position(10, 0),
    }
    return Lane(**{**fields, **changes})


def row(revision: int, name: str = "", state: DeliveryState = PENDING, *, on: str = "one", **changes: Any) -> Delivery:
    fields = {
        "delivery_id": f"dlv_{on}_{revision}",
        "lane_id": f"lane-{on}",
        "session_id": "session",
        "route_uid": "route",
        "op": "put",
        "kind": "service",
        "namespace": "default",
        "name": name or f"svc-{revision}",
        "revision": revision,
        "seq": 0,
        "state": state,
        "next_at": NOW if state is WAITING else None,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Delivery(**{**fields, **changes})


async def put(store: Store, *rows: Delivery) -> None:
    await store.apply(Settlements(lanes=(lane(),), upserts=rows))


def session(name: str = "session", **changes: Any) -> Session:
    fields = {
        "session_id": name,
        "mode": "multicast",
        "source": "service/default/hub",
        "targets": ("system/one", "system/two"),
        "standing": False,
        "state": "planned",
        "revision": 5,
        "created_at": NOW,
        "last_activity": NOW,
        "reason": "revision 5",
    }
    return Session(**{**fields, **changes})


async def rows(store: Store) -> dict[str, Delivery]:
    return {each.name: each for each in await store.deliveries()}


async def due(store: Store) -> list[str]:
    return [each.name for each in await store.due("lane-one", NOW, 10)]


# --- single deliveries kept back ------------------------------------------------------------------------------------


async def test_what_is_kept_back_is_stored_counts_and_is_not_due(store: Store) -> None:
    waits = WaitsFor(lanes=("lane-two",), at=Position(9, 1).packed, skip=True)
    kept = (
        row(1, "a", keep=Keep.AFTER, waits_for=waits, replay_of="dlv_first"),
        row(2, "b", WAITING, keep=Keep.PAUSED, next_at=NOW - timedelta(seconds=1)),
        row(3, "c"),
        row(4, "a"),
    )
    await put(store, *kept)
    found = {each.delivery_id: each for each in await store.deliveries()}
    assert [found[each.delivery_id] for each in kept] == list(kept)
    assert await due(store) == ["c"], "a later line of the same record waits behind one that is kept back"
    assert await store.next_due() is None
    assert (await store.depth()).queue_depth == 4
    await put(store, replace(kept[0], keep=Keep.NONE, waits_for=None))
    assert await due(store) == ["a", "c"]


async def test_what_nobody_has_under_way_is_found_page_by_page(store: Store) -> None:
    waits = WaitsFor(lanes=("lane-two",), at=1)
    mine = [
        row(1, "a"),
        row(2, "b", WAITING, next_at=NOW + timedelta(hours=5)),
        row(3, "c", SENDING),
        row(4, "d", DEAD),
        row(5, "e", keep=Keep.AFTER, waits_for=waits),
        row(6, "f", CANCELLED),
        row(7, "g", keep=Keep.PAUSED),
        row(7, "g", delivery_id="dlv_again", replay_of="dlv_one_7"),
    ]
    other = row(6, "other", session_id="another")
    elsewhere = [row(1, "a", on="two"), row(9, "h", on="two")]
    await store.apply(Settlements(lanes=(lane(), lane("two")), upserts=(*mine, other, *elsewhere)))

    async def pages(limit: int, **of: str) -> list[tuple[str, str]]:
        found: list[Delivery] = []
        while page := await store.undone(**of, after=found[-1] if found else None, limit=limit):
            assert len(page) <= limit
            found += page
        return [(each.lane_id, each.delivery_id) for each in found]

    one = ["dlv_one_1", "dlv_one_2", "dlv_one_5", "dlv_again", "dlv_one_7"]
    two = ["dlv_two_1", "dlv_two_9"]
    for limit in (1, 2, 3, 100):
        assert await pages(limit, session_id="session") == [
            *(("lane-one", each) for each in one),
            *(("lane-two", each) for each in two),
        ]
        assert await pages(limit, session_id="another") == [("lane-one", "dlv_one_6")]
        assert [each for _, each in await pages(limit, lane_id="lane-one")] == [*one[:3], "dlv_one_6", *one[3:]]
        assert [each for _, each in await pages(limit, lane_id="lane-two")] == two
    assert await store.undone(session_id="none", limit=10) == []
    found = {each.delivery_id: each for each in await store.undone(lane_id="lane-one", limit=10)}
    assert found["dlv_one_5"].waits_for == waits


async def test_the_newest_event_that_is_missed_is_found_among_many(store: Store) -> None:
    hub = {"op": "event", "name": "hub"}
    many = [row(revision, state=DEAD, **hub) for revision in range(1, 1203)]
    more = [row(1300, state=CANCELLED, **hub), row(1301, **hub), row(1302, "hub", DEAD), row(1303, state=DEAD, **hub)]
    elsewhere = [row(1304, state=DEAD, on="two", **hub), row(1305, "spoke", DEAD, op="event")]
    await store.apply(Settlements(lanes=(lane(), lane("two")), upserts=(*many, *more, *elsewhere)))
    key = many[0].key

    async def missed(revision: int, seq: int = 0) -> Position | None:
        return await store.missed_event("lane-one", key, Position(revision, seq))

    assert await missed(1) is None
    assert await missed(1, 1) == Position(1, 0)
    assert await missed(1250) == Position(1202, 0), "a thousand older ones are no reason to name one of them"
    assert await missed(1303) == Position(1300, 0), "neither what still lives nor what is no event"
    assert await missed(2000) == Position(1303, 0)


# --- chains ---------------------------------------------------------------------------------------------------------


async def hop(store: Store, first: Position, *, skip: bool = False, before: Delivery | None = None, **of: Any) -> bool:
    """Whether a delivery of line 9.1 on lane one goes on, with lane two at `first` and `before` among its rows."""
    await store.claim("boot-1", NOW, LEASE)
    waits = WaitsFor(lanes=("lane-two",), at=Position(9, 1).packed, skip=skip)
    kept = row(9, "a", seq=1, keep=Keep.AFTER, waits_for=waits, **of)
    two = lane("two", position=first)
    await store.apply(Settlements(lanes=(lane(), two), upserts=(kept, *([before] if before else []))))
    (looked,) = await store.release(_BEGINNING, 10, NOW)
    assert (looked.lane_id, looked.position) == ("lane-one", Position(9, 1))
    assert (await due(store) == ["a"]) is looked.released
    return looked.released


@pytest.mark.parametrize(
    ("first", "released"),
    [(Position(9, 0), False), (Position(9, 1), True), (Position(10, 0), True), (Position(8, 900), False)],
)
async def test_a_hop_waits_for_the_place_of_its_line(store: Store, first: Position, released: bool) -> None:
    assert await hop(store, first) is released


@pytest.mark.parametrize(
    ("state", "skip", "released"),
    [
        (PENDING, False, False),
        (SENDING, True, False),
        (WAITING, True, False),
        (DEAD, False, False),
        (DEAD, True, True),
        (CANCELLED, False, False),
        (CANCELLED, True, True),
    ],
)
async def test_a_hop_waits_for_what_became_of_its_line(
    store: Store, state: DeliveryState, skip: bool, released: bool
) -> None:
    before = row(9, "a", state, on="two", seq=1)
    assert await hop(store, Position(20, 0), skip=skip, before=before) is released


async def test_a_row_of_another_line_is_nothing_to_a_hop(store: Store) -> None:
    assert await hop(store, Position(20, 0), before=row(9, "b", WAITING, on="two", seq=0))


async def test_a_lane_that_is_gone_is_waited_for_no_longer(store: Store) -> None:
    await store.claim("boot-1", NOW, LEASE)
    waits = WaitsFor(lanes=("lane-two", "lane-three"), at=1)
    kept = row(9, "a", keep=Keep.AFTER, waits_for=waits)
    await store.apply(Settlements(lanes=(lane(), lane("two", position=Position(20, 0))), upserts=(kept,)))
    assert [each.released for each in await store.release(_BEGINNING, 10, NOW)] == [False], "three is not there yet"
    await store.apply(Settlements(lanes=(lane("three", position=Position(0, 0)),)))
    assert [each.released for each in await store.release(_BEGINNING, 10, NOW)] == [False]
    await store.apply(Settlements(dropped_lanes=("lane-three",)))
    assert (await rows(store))["a"].waits_for == WaitsFor(lanes=("lane-two",), at=1)
    assert [each.released for each in await store.release(_BEGINNING, 10, NOW)] == [True]
    assert await store.release(_BEGINNING, 10, NOW) == []


async def test_looking_goes_on_from_a_place(store: Store) -> None:
    await store.claim("boot-1", NOW, LEASE)
    waits = WaitsFor(lanes=("lane-two",), at=Position(99, 0).packed)
    kept = tuple(row(each, keep=Keep.AFTER, waits_for=waits) for each in range(1, 6))
    await store.apply(Settlements(lanes=(lane(), lane("two")), upserts=kept))
    first = await store.release(_BEGINNING, 3, NOW)
    assert [each.position.revision for each in first] == [1, 2, 3]
    assert [each.position.revision for each in await store.release(first[-1].position, 3, NOW)] == [4, 5]


# --- sessions -------------------------------------------------------------------------------------------------------


async def test_a_session_keeps_its_steps(store: Store) -> None:
    begun = session(deadline=NOW + timedelta(hours=1))
    await store.apply(Settlements(sessions=(begun,)))
    assert list(await store.sessions("session")) == [begun]
    running = replace(begun, state="running", reason="under way", last_activity=NOW + timedelta(seconds=1))
    for each in (running, replace(running, reason="still"), begun):
        await store.apply(Settlements(sessions=(each,)))
    assert [each.state for each in await store.sessions()] == ["running"], "what is begun again goes on where it was"
    done = replace(running, state="succeeded", reason="2 executed")
    for each in (done, running):
        await store.apply(Settlements(sessions=(each,)))
    assert [each.state for each in await store.sessions()] == ["succeeded"], "what has ended has ended"
    steps = [(each.before, each.state, each.reason) for each in await store.transitions("session")]
    assert steps == [
        ("", "planned", "revision 5"),
        ("planned", "running", "under way"),
        ("running", "succeeded", "2 executed"),
    ]


async def test_of_a_session_the_newest_hundred_steps_stay(store: Store) -> None:
    standing = session(standing=True, state="syncing")
    for number in range(130):
        state = ("syncing", "in_sync")[number % 2]
        await store.apply(Settlements(sessions=(replace(standing, state=state, reason=str(number)),)))
    steps = await store.transitions("session")
    assert [each.reason for each in steps] == [str(number) for number in range(30, 130)]


async def test_open_sessions_come_with_the_states_of_their_targets(store: Store) -> None:
    await store.claim("boot-1", NOW, LEASE)
    lanes = (lane(position=Position(9, 0)), lane("two", position=Position(9, 0)))
    rows_ = (row(5, "a", WAITING, on="two", session_id="s1"), row(5, "b", DEAD, session_id="s2"))
    sessions = (
        session("s1"),
        session("s2", state="paused"),
        session("s3", state="succeeded"),
        session("s4", standing=True, state="syncing"),
        session("s5", revision=30),
    )
    await store.apply(Settlements(lanes=lanes, upserts=rows_, sessions=sessions))
    found = {each.session_id: sorted(states) for each, states in await store.open_sessions("", 10)}
    assert found == {"s1": ["executed", "retry"], "s2": ["executed", "failed"], "s5": ["pending", "pending"]}
    assert [each.session_id for each, _ in await store.open_sessions("s1", 1)] == ["s2"]


async def test_a_delivery_that_is_sent_again_opens_its_session_again(store: Store) -> None:
    await put(store, row(5, "a", DEAD))
    await store.apply(Settlements(sessions=(session(state="partial", reason="1 executed, 1 failed"),)))
    await put(store, row(5, "a", PENDING, reason="sent again by ann"))
    (found,) = await store.sessions("session")
    assert (found.state, found.reason) == ("running", "sent again by ann")


async def test_a_target_removed_before_it_got_its_part_is_gone_and_a_namesake_is_another(store: Store) -> None:
    await store.claim("boot-1", NOW, LEASE)
    one_shot = (session("held"), session("unplanned", revision=30), session("arrived"))
    waits = (row(5, "a", session_id="held"), row(6, "b", session_id="standing"))
    await store.apply(Settlements(lanes=(lane(), lane("two")), upserts=waits))
    await store.apply(Settlements(sessions=(*one_shot, session("standing", standing=True))))
    await store.apply(Settlements(dropped_lanes=("lane-one",)))
    await store.apply(Settlements(lanes=(lane(lane_id="lane-new", target_uid="new", position=Position(40, 0)),)))
    found = {each.session_id: (each.state, each.gone) for each in await store.sessions()}
    assert found == {
        "held": ("planned", ("system/one",)),
        "unplanned": ("planned", ("system/one",)),
        "arrived": ("planned", ()),
        "standing": ("planned", ()),
    }
    states = {each.session_id: sorted(states) for each, states in await store.open_sessions("", 10)}
    assert states == {
        "held": ["cancelled", "executed"],
        "unplanned": ["cancelled", "pending"],
        "arrived": ["executed", "executed"],
    }


# --- when it arrived --------------------------------------------------------------------------------------------------


def _arrival(name: str, at: int, *, of: str = "session") -> Arrival:
    """At a target, so many seconds after NOW, by an attempt that took a second and a half."""
    moment = NOW + timedelta(seconds=at)
    return Arrival(
        session_id=of,
        target_namespace="system",
        target_name=name,
        delivery_id=f"dlv_{name}_{at}",
        began_at=moment - timedelta(milliseconds=1500),
        arrived_at=moment,
    )


async def test_arrivals_are_kept_with_the_targets_of_a_session_the_newest_of_each(
    engine: Opener, tmp_path: Path
) -> None:
    targets = ("system/two", "system/one", "system/three")
    begun = session(targets=targets)
    async with engine(tmp_path) as store:
        first, second = _arrival("one", 3), _arrival("two", 5)
        await store.apply(Settlements(lanes=(lane(),), sessions=(begun,), arrivals=(first,)))
        assert list(await store.arrivals("session")) == [first]
        await store.apply(Settlements(arrivals=(second, _arrival("one", 2), _arrival("nobody", 9))))
        assert list(await store.arrivals("session")) == [second, first], "in the order of the targets"
        newer = _arrival("one", 7)
        await store.apply(Settlements(arrivals=(newer, _arrival("one", 9, of="other"))))
        await store.apply(Settlements(arrivals=(newer,)))  # again, as after an answer that was lost
        await store.apply(Settlements(sessions=(replace(begun, state="running"),)))
        assert list(await store.arrivals("session")) == [second, newer]
        assert list(await store.arrivals("other")) == []
    async with engine(tmp_path) as store:
        assert list(await store.arrivals("session")) == [second, newer]
        await store.apply(Settlements(dropped_lanes=("lane-one",)))
        assert list(await store.arrivals("session")) == [second, newer], "what arrived has arrived"
