"""When a registry must become somebody else, who is a copy, and what is left for people to review."""

from __future__ import annotations

from universal_registry.sync.conflict import NEWEST, Sort, conflicts_of
from universal_registry.sync.identity import Identity, Live, Marker, Renewal, is_clone, renewal_at_start, renewal_for
from universal_registry.sync.merge import Writer, deleted, merged, written
from universal_registry.sync.version import NOTHING, next_stamp, shown

ME = Identity(node="0000000a", epoch="00000001", store="00000002", cluster="home", boot="b1", feed=50)


def test_a_store_that_was_killed_stays_itself() -> None:
    assert renewal_at_start(ME, Marker("b1", 50), shared=False) is Renewal.NO
    assert renewal_at_start(ME, Marker("b1", 7), shared=False) is Renewal.NO


def test_a_store_that_was_restored_does_not() -> None:
    assert renewal_at_start(ME, Marker("b2", 50), shared=False) is Renewal.OTHER_BOOT
    assert renewal_at_start(ME, Marker("b1", 51), shared=False) is Renewal.BEHIND
    assert renewal_at_start(ME, None, shared=False) is Renewal.NO_MARKER


def test_on_a_server_only_the_numbers_tell() -> None:
    assert renewal_at_start(ME, Marker("b2", 50), shared=True) is Renewal.NO
    assert renewal_at_start(ME, None, shared=True) is Renewal.NO
    assert renewal_at_start(ME, Marker("b2", 51), shared=True) is Renewal.BEHIND


def test_a_peer_that_knows_more_of_us_shows_that_we_were_restored() -> None:
    assert renewal_for(ME, {ME.origin: 50, "0000000b-00000001": 99}) is Renewal.NO
    assert renewal_for(ME, {ME.origin: 51}) is Renewal.PEER_KNOWS_MORE


def test_two_runs_of_one_node_are_a_clone_and_a_reconnect_is_not() -> None:
    live = Live("0000000b", "s", "run1")
    assert not is_clone(live, [live], ME)
    assert not is_clone(live, [Live("0000000c", "s", "run9")], ME)
    assert is_clone(live, [live._replace(boot="run2")], ME)
    assert is_clone(Live(ME.node, "s", "x"), [], ME), "our own copy calls us"


def test_stamps_rise_on_a_clock_that_is_set_back_and_adopt_no_other() -> None:
    first = next_stamp(0, 1000)
    assert first < next_stamp(first, 500) < next_stamp(first, 2000)


def test_values_that_are_equal_are_no_conflict() -> None:
    a = written(NOTHING, {"/title": "same"}, Writer("0000000a-00000001", 1, 1))
    b = written(NOTHING, {"/title": "same"}, Writer("0000000b-00000001", 1, 2))
    both = merged(a, {"0000000a-00000001": 1}, b, {"0000000b-00000001": 1})
    assert len(both.fields["/title"]) == 2
    assert conflicts_of(both) == []


def test_policies_choose_what_is_shown_and_listed() -> None:
    a = written(NOTHING, {"/title": "a"}, Writer("0000000a-00000001", 1, 1))
    b = written(NOTHING, {"/title": "b"}, Writer("0000000b-00000001", 1, 2))
    both = merged(a, {"0000000a-00000001": 1}, b, {"0000000b-00000001": 1})
    [conflict] = conflicts_of(both)
    assert conflict.shown is not None
    assert (conflict.sort, conflict.shown.value, [each.value for each in conflict.losers]) == (Sort.VALUE, "b", ["a"])
    assert conflicts_of(both, NEWEST) == []
    assert shown(both.fields["/title"], "0000000a").value == "a"
    assert conflicts_of(both, "prefer-node:0000000a") == []


def test_an_object_beside_a_value_is_a_conflict_of_shape() -> None:
    a = written(NOTHING, {"/spec/x": 5}, Writer("0000000a-00000001", 1, 1))
    b = written(NOTHING, {"/spec/x/y": 6}, Writer("0000000b-00000001", 1, 2))
    both = merged(a, {"0000000a-00000001": 1}, b, {"0000000b-00000001": 1})
    assert [(each.path, each.sort) for each in conflicts_of(both)] == [("/spec/x", Sort.SHAPE)]


def test_a_deletion_sees_what_it_sees() -> None:
    writer = Writer("0000000a-00000001", 1, 1)
    state = written(NOTHING, {"/title": "t"}, writer)
    gone = deleted(state, Writer("0000000a-00000001", 2, 2))
    assert list(gone.fields) == ["#life"]
