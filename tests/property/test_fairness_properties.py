"""No target takes more than its part: rates hold in any second, slots stay free for who answers, weights count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from math import ceil

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes import retry_budget as budget
from universal_registry.propagation.lanes.fairness import Slots, Standing, Turns, allowed, of_attempt
from universal_registry.propagation.lanes.lane import Guard
from universal_registry.propagation.lanes.token_bucket import Bucket, changed, enough_at, has_enough, level, rated

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
rates = st.one_of(st.integers(1, 200).map(float), st.floats(0.01, 200))
steps = st.lists(st.one_of(st.floats(0, 0.2), st.floats(0, 3)), max_size=60)


# --- rates ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(rates, steps, st.integers(0, 60))
def test_in_no_second_more_than_the_rate_is_taken(rate: float, gaps: list[float], restart: int) -> None:
    """Whoever asks takes all there is, after any pause; a restart in between forgets nothing that was stored."""
    flow, bucket, now = rated(rate), None, START
    taken: list[datetime] = []
    for index, gap in enumerate([0.0, *gaps]):
        now += timedelta(seconds=gap)
        while has_enough(bucket, flow, now):
            bucket = changed(bucket, flow, now, -1.0)
            taken.append(now)
        if index == restart and bucket is not None:
            bucket = msgspec.json.decode(msgspec.json.encode(bucket), type=Bucket)
    for index, begun in enumerate(taken):
        within = sum(begun <= each < begun + timedelta(seconds=1) for each in taken[index:])
        assert within <= ceil(rate), (rate, begun)


@given(rates)
def test_whoever_waits_until_there_is_enough_gets_it_and_nearly_the_whole_rate(rate: float) -> None:
    flow, bucket, now = rated(rate), None, START
    for _ in range(200):
        now = enough_at(bucket, flow, now)
        assert has_enough(bucket, flow, now + timedelta(microseconds=1))
        now += timedelta(microseconds=1)
        bucket = changed(bucket, flow, now, -1.0)
    passed = (now - START).total_seconds()
    assert 200 / (passed + 1 / rate) >= 0.9 * rate or passed < 1


@given(rates, st.floats(0, 100), st.floats(-7200, 7200))
def test_a_clock_that_steps_makes_nothing_out_of_nothing(rate: float, tokens: float, step: float) -> None:
    flow = rated(rate)
    found = level(Bucket(min(tokens, flow.most), START), flow, START + timedelta(seconds=step))
    assert 0 <= found <= flow.most


# --- the budget of retries --------------------------------------------------------------------------------------------

outcomes = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 30)), max_size=80)


@given(outcomes, st.floats(1, 20), st.floats(0.1, 60))
def test_failed_retries_never_cost_more_than_the_budget_and_what_came_back(
    history: list[tuple[bool, bool, float]], most: float, refill: float
) -> None:
    retry = RetrySettings(budget=most, budget_refill_seconds=refill)
    guard, now, spent, back = Guard(), START, 0, 0.0
    for success, retried, gap in history:
        now += timedelta(seconds=gap)
        back += gap / refill
        if success:
            guard, back = budget.rewarded(guard, retry, now, retried=retried), back + (1.0 if retried else 0.1)
        elif budget.may_retry(guard, retry, now):
            guard, spent = budget.charged(guard, retry, now), spent + 1
        assert spent <= most + back + 1e-6


@given(st.floats(1, 20), st.floats(0.1, 60), st.integers(1, 100))
def test_a_target_with_little_traffic_is_still_retried(most: float, refill: float, failures: int) -> None:
    retry = RetrySettings(budget=most, budget_refill_seconds=refill)
    guard = Guard()
    for _ in range(failures):
        guard = budget.charged(guard, retry, START)
    due = budget.retry_at(guard, retry, START)
    assert due - START <= timedelta(seconds=refill + 0.001)
    assert budget.may_retry(guard, retry, due + timedelta(microseconds=1))


@given(st.floats(1, 20), st.floats(0.1, 60), st.integers(0, 40), st.floats(0, 30))
def test_what_is_said_of_the_budget_is_what_is_done(most: float, refill: float, failures: int, gap: float) -> None:
    retry = RetrySettings(budget=most, budget_refill_seconds=refill)
    guard = Guard()
    for _ in range(failures):
        guard = budget.charged(guard, retry, START)
    now = START + timedelta(seconds=gap)
    may = budget.retries(guard, retry, now)
    assert [budget.may_retry(guard, retry, now, under_way) for under_way in range(may + 1)] == [True] * may + [False]
    assert bool(budget.used_up(guard, retry, now)) == (may == 0)
    assert budget.retry_at(guard, retry, now) == now if may else budget.retry_at(guard, retry, now) >= now


# --- slots ------------------------------------------------------------------------------------------------------------

kinds = st.sampled_from(Standing)


@given(st.integers(1, 50), st.lists(st.tuples(kinds, st.booleans()), max_size=200))
def test_slots_stay_free_for_those_that_answer(most: int, events: list[tuple[Standing, bool]]) -> None:
    slots, under_way = Slots(), Counter[Standing]()
    for kind, ends in events:
        if ends and under_way[kind]:
            slots.end(kind)
            under_way[kind] -= 1
        elif slots.admits(kind, most):
            slots.begin(kind)
            under_way[kind] += 1
        assert slots.used == sum(under_way.values()) <= most
        assert under_way[Standing.TROUBLED] <= max(1, most * 2 // 10)
        assert under_way[Standing.TROUBLED] + under_way[Standing.UNKNOWN] <= max(1, most * 4 // 10)
    if most >= 2 and under_way[Standing.PROVEN] == 0:
        assert slots.admits(Standing.PROVEN, most), "whatever the others do"


def test_by_default_ten_hanging_targets_hold_two_slots_and_eight_are_free() -> None:
    assert [allowed(kind, 10) for kind in Standing] == [10, 4, 2]
    assert of_attempt(Standing.PROVEN, 1) is Standing.UNKNOWN, "a retry takes no slot kept for first attempts"
    assert of_attempt(Standing.TROUBLED, 0) is Standing.TROUBLED


# --- turns ------------------------------------------------------------------------------------------------------------


class Worker:
    """One with work to do."""

    def __init__(self, place: int, weight: int, work: int, kind: Standing = Standing.PROVEN) -> None:
        self.place, self.weight, self.work, self.kind, self.done = place, weight, work, kind, 0


def begin(worker: Worker) -> bool:
    if worker.work <= 0:
        return False
    worker.work -= 1
    worker.done += 1
    return True


def take(turns: Turns[Worker], waiting: Iterable[Worker], number: int, full: Collection[Standing] = ()) -> list[Worker]:
    """As many as `number` begin, in their order; there is no room for those that stand as in `full`."""
    begun: list[Worker] = []

    def start(worker: Worker) -> bool:
        assert worker.kind not in full
        if begin(worker):
            begun.append(worker)
            return True
        return False

    for worker in waiting:
        turns.join(worker, worker.kind)
    turns.share(start, lambda kind: len(begun) < number and kind not in full)
    return begun


@given(
    st.lists(st.tuples(st.integers(1, 5), kinds), min_size=1, max_size=8),
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
)
def test_each_gets_a_part_like_its_weight(weights: list[tuple[int, Standing]], rooms: list[int]) -> None:
    """Slots come free one by one or in bunches; all have enough to do. However they stand: there is room for all."""
    workers = [Worker(place, weight, 10**6, kind) for place, (weight, kind) in enumerate(weights)]
    turns: Turns[Worker] = Turns()
    rounds = 20
    started, wanted = 0, rounds * sum(worker.weight for worker in workers)
    index = 0
    while started < wanted:
        room = min(rooms[index % len(rooms)], wanted - started)
        index += 1
        started += len(take(turns, workers, room))
    assert [worker.done for worker in workers] == [rounds * worker.weight for worker in workers]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6), kinds), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(0, 7), max_size=8), max_size=30),
)
def test_nobody_who_has_work_is_passed_over(work: list[tuple[int, int, Standing]], present: list[list[int]]) -> None:
    """Whoever is there with work starts something before anybody starts more than a whole turn again."""
    workers = [Worker(place, weight, 10**6 if jobs else 0, kind) for place, (weight, jobs, kind) in enumerate(work)]
    turns: Turns[Worker] = Turns()
    since: Counter[tuple[int, int]] = Counter()
    there: set[int] = set()
    for indexes in present:
        there |= set(indexes)
        waiting = [worker for worker in workers if worker.place in there and worker.work > 0]
        for worker in take(turns, [each for each in workers if each.place in there], 1):
            for other in waiting:
                if other is not worker:
                    since[other.place, worker.place] += 1
                    assert since[other.place, worker.place] <= 2 * worker.weight, "one starves beside another"
            for each in workers:
                since[worker.place, each.place] = 0


@given(st.lists(st.tuples(st.integers(1, 3), kinds), min_size=1, max_size=12), st.sets(kinds))
def test_those_for_whom_there_is_no_slot_keep_their_place(
    given_workers: list[tuple[int, Standing]], full: set[Standing]
) -> None:
    """None of them is even looked at; once there is room for them, they come before those who had a turn meanwhile."""
    workers = [Worker(place, weight, 10**6, kind) for place, (weight, kind) in enumerate(given_workers)]
    turns: Turns[Worker] = Turns()
    others = [worker for worker in workers if worker.kind not in full]
    turn = sum(worker.weight for worker in others)
    assert len(take(turns, workers, turn, full)) == turn
    assert [worker.done for worker in workers] == [0 if worker.kind in full else worker.weight for worker in workers]
    kept = [worker for worker in workers if worker.kind in full]
    begun = take(turns, workers, sum(worker.weight for worker in kept))
    assert list(dict.fromkeys(begun)) == kept


def test_one_that_stands_otherwise_now_changes_its_line() -> None:
    turns: Turns[Worker] = Turns()
    worker = Worker(0, 1, 1, Standing.TROUBLED)
    assert take(turns, [worker], 1, {Standing.TROUBLED}) == []
    worker.kind = Standing.PROVEN
    assert take(turns, [worker], 1, {Standing.TROUBLED}) == [worker]


def test_all_that_can_start_does_and_then_it_ends() -> None:
    workers = [Worker(0, 2, 3), Worker(1, 1, 0), Worker(2, 1, 5)]
    turns: Turns[Worker] = Turns()
    take(turns, workers, 100)
    assert [worker.work for worker in workers] == [0, 0, 0]
