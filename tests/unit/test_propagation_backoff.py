"""The retry sequence that the documentation promises, to the letter."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from universal_registry.kernel.settings import SLOW_PHASE, RetrySettings
from universal_registry.propagation.lanes.backoff import delay, next_wait

RETRY = RetrySettings()
ALMOST_ONE = 1 - 2**-53


def seconds(attempt: int, chance: float, retry: RetrySettings = RETRY) -> float:
    return delay(attempt, retry, chance).total_seconds()


def test_the_fast_phase_is_1_2_4_8_16() -> None:
    assert [seconds(attempt, 0.0) for attempt in range(5)] == [1, 2, 4, 8, 16]


def test_jitter_lengthens_by_at_most_a_tenth() -> None:
    assert [seconds(attempt, 1.0) for attempt in range(5)] == pytest.approx([1.1, 2.2, 4.4, 8.8, 17.6])
    for attempt in range(5):
        assert seconds(attempt, 0.0) <= seconds(attempt, 0.5) <= seconds(attempt, ALMOST_ONE)


def test_the_cap_holds_after_the_jitter() -> None:
    assert seconds(8, 0.0) == 256
    assert seconds(8, ALMOST_ONE) == pytest.approx(281.6)
    assert seconds(9, 0.0) == 300
    assert seconds(9, ALMOST_ONE) == 300
    capped = replace(RETRY, max_delay_seconds=16.0)
    assert seconds(4, ALMOST_ONE, capped) == 16.0


@pytest.mark.parametrize("attempt", [1023, 1024, 10**9, 10**30])
def test_no_attempt_number_is_too_large(attempt: int) -> None:
    assert seconds(attempt, ALMOST_ONE) == 300
    assert seconds(attempt, ALMOST_ONE, replace(RETRY, backoff_multiplier=100.0)) == 300


def test_a_multiplier_of_one_stays_at_the_base() -> None:
    assert seconds(10**9, 0.0, replace(RETRY, backoff_multiplier=1.0)) == 1


def test_without_jitter_chance_changes_nothing() -> None:
    exact = replace(RETRY, jitter_enabled=False)
    assert [seconds(attempt, ALMOST_ONE, exact) for attempt in range(5)] == [1, 2, 4, 8, 16]
    assert next_wait(5, exact, ALMOST_ONE) == SLOW_PHASE[0]


def test_six_attempts_then_the_slow_phase_then_no_more() -> None:
    waits = [next_wait(attempt, RETRY, 0.0) for attempt in range(14)]
    assert waits[:5] == [timedelta(seconds=each) for each in (1, 2, 4, 8, 16)]
    assert waits[5:13] == list(SLOW_PHASE)
    assert waits[13] is None
    assert next_wait(5, RETRY, 1.0) == timedelta(minutes=5.5)


def test_the_literal_settings_give_up_after_six_attempts() -> None:
    literal = replace(RETRY, slow_phase=False)
    assert [next_wait(attempt, literal, 0.0) is None for attempt in range(7)] == [False] * 5 + [True, True]


def test_full_jitter_takes_any_part_of_a_wait_of_the_fast_phase() -> None:
    full = replace(RETRY, jitter="full")
    assert [seconds(attempt, 0.5, full) for attempt in range(5)] == [0.5, 1, 2, 4, 8]
    assert seconds(3, 0.0, full) == 0
    assert seconds(10**9, ALMOST_ONE, full) == pytest.approx(300)
    assert seconds(3, 0.5, replace(full, jitter_enabled=False)) == 8
    assert next_wait(5, full, 1.0) == timedelta(minutes=5.5), "the slow phase is long enough to spread"


def test_switched_off_means_one_attempt() -> None:
    assert next_wait(0, replace(RETRY, enabled=False), 0.0) is None


def test_no_fast_phase_goes_straight_to_the_slow_one() -> None:
    assert next_wait(0, replace(RETRY, max_retries=0), 0.0) == SLOW_PHASE[0]
