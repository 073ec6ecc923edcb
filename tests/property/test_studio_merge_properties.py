"""What a studio pushes is merged by field: nothing unseen is overwritten, and nothing that it changed is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from universal_registry.propagation.studio.merge import three_way

LEAVES = st.one_of(
    st.booleans(), st.integers(0, 2), st.sampled_from(["", "a", "b"]), st.lists(st.integers(0, 1), max_size=2)
)
SPECS = st.recursive(
    st.dictionaries(st.sampled_from("xyz"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), st.one_of(LEAVES, inner), max_size=3),
    max_leaves=6,
)


def merged(ours: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    found = dict(ours)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict):
            inner = found.get(name)
            found[name] = merged(inner if isinstance(inner, dict) else {}, value)
        else:
            found[name] = value
    return found


@given(SPECS, SPECS)
def test_what_only_the_studio_has_changed_becomes_as_it_has_it(base: dict[str, Any], theirs: dict[str, Any]) -> None:
    found = three_way(base, theirs, base)
    assert found.conflicts == ()
    assert merged(base, found.patch) == theirs


@given(SPECS, SPECS)
def test_what_the_studio_has_not_changed_stays(base: dict[str, Any], ours: dict[str, Any]) -> None:
    assert three_way(base, base, ours) == ({}, ())


@given(SPECS, SPECS, SPECS)
def test_once_taken_in_it_changes_nothing_more(
    base: dict[str, Any], theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    found = three_way(base, theirs, ours)
    if not found.conflicts:
        after = merged(ours, found.patch)
        assert three_way(base, theirs, after) == ({}, ())


@given(SPECS, SPECS, SPECS)
def test_a_field_that_both_changed_differently_is_a_conflict(
    base: dict[str, Any], theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    conflicts = three_way(base, theirs, ours).conflicts
    for name in {*base, *theirs, *ours}:
        before, wanted, now = (each.get(name) for each in (base, theirs, ours))
        plain = not any(isinstance(each, dict) for each in (before, wanted, now))
        different = [repr(each) for each in (before, wanted, now)]
        if plain and len(set(different)) == 3:
            assert name in conflicts
