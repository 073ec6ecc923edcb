"""Records that go to and fro between registries."""

from __future__ import annotations

from universal_registry.kernel.ids import Key
from universal_registry.sync.flapping import MOST_TURNS, WINDOW_SECONDS, Flaps

GS, LL = Key("alias", "default", "gs"), Key("alias", "default", "ll")


def by_turns(flaps: Flaps, key: Key, times: list[float]) -> None:
    for number, at in enumerate(times):
        flaps.changed(key, "0000000b" if number % 2 else "", at)


def test_more_than_ten_turns_within_a_minute_are_told_once() -> None:
    flaps = Flaps()
    by_turns(flaps, GS, [float(each) for each in range(MOST_TURNS + 1)])
    assert flaps.tripped() == {}, "ten turns are none too many"
    flaps.changed(GS, "0000000b", MOST_TURNS + 1.0)
    assert flaps.tripped() == {GS: "0000000b"}
    by_turns(flaps, GS, [MOST_TURNS + 2.0 + each for each in range(20)])
    assert flaps.tripped() == {}, "in that minute it was told"
    by_turns(flaps, GS, [100.0 + each for each in range(20)])
    assert flaps.tripped() == {GS: "0000000b"}, "it goes on"


def test_what_goes_slowly_or_one_way_is_nobodys_business() -> None:
    flaps = Flaps()
    by_turns(flaps, GS, [each * (WINDOW_SECONDS / MOST_TURNS + 0.1) for each in range(100)])
    for number in range(100):
        flaps.changed(LL, "0000000b", number / 10)
        flaps.changed(Key("alias", "default", f"n{number}"), "" if number % 2 else "0000000b", number / 10)
    assert flaps.tripped() == {}


def test_between_two_peers_too_and_many_records_cost_no_more_memory() -> None:
    flaps = Flaps()
    for number in range(2 * MOST_TURNS):
        flaps.changed(GS, "0000000b" if number % 2 else "0000000c", float(number))
    assert list(flaps.tripped()) == [GS]
    for number in range(30_000):
        flaps.changed(Key("alias", "default", f"n{number}"), "", 30.0)
    flaps.changed(GS, "", 31.0)
    assert flaps.tripped() == {}
    assert len(flaps._records) <= 10_001
