"""JSON Patch: the examples of RFC 6902, what is refused, and that nothing grows without bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.kernel.errors import Invalid
from universal_registry.registry.patch import MOST_STEPS, apply_patch, measure, parse_patch, same

RFC_EXAMPLES: list[tuple[str, Any, list[dict[str, Any]], Any]] = [
    ("A.1", {"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    (
        "A.2",
        {"foo": ["bar", "baz"]},
        [{"op": "add", "path": "/foo/1", "value": "qux"}],
        {"foo": ["bar", "qux", "baz"]},
    ),
    ("A.3", {"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ("A.4", {"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    (
        "A.5",
        {"baz": "qux", "foo": "bar"},
        [{"op": "replace", "path": "/baz", "value": "boo"}],
        {"baz": "boo", "foo": "bar"},
    ),
    (
        "A.6",
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        "A.7",
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        "A.8",
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    (
        "A.10",
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    (
        "A.11",
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
        {"foo": "bar", "baz": "qux"},
    ),
    ("A.14", {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    (
        "A.16",
        {"foo": ["bar"]},
        [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
        {"foo": ["bar", ["abc", "def"]]},
    ),
    ("whole", {"foo": 1}, [{"op": "replace", "path": "", "value": [1]}], [1]),
    ("empty key", {"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
    ("to itself", {"a": 1}, [{"op": "move", "from": "/a", "path": "/a"}], {"a": 1}),
    ("copy", {"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
    (
        "copies are apart",
        {"a": {"b": 1}},
        [{"op": "copy", "from": "/a", "path": "/c"}, {"op": "replace", "path": "/c/b", "value": 2}],
        {"a": {"b": 1}, "c": {"b": 2}},
    ),
    ("null is a value", {"a": None}, [{"op": "test", "path": "/a", "value": None}], {"a": None}),
]


@pytest.mark.parametrize(
    ("document", "patch", "wanted"), [each[1:] for each in RFC_EXAMPLES], ids=[e[0] for e in RFC_EXAMPLES]
)
def test_what_the_rfc_says(document: Any, patch: Any, wanted: Any) -> None:
    before = repr(document)
    assert apply_patch(document, parse_patch(patch)) == wanted
    assert repr(document) == before


@pytest.mark.parametrize(
    ("document", "patch"),
    [
        ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}]),
        ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}]),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}]),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": True}]),
        ({"a": [1]}, [{"op": "add", "path": "/a/2", "value": 1}]),
        ({"a": [1]}, [{"op": "replace", "path": "/a/-", "value": 1}]),
        ({"a": [1]}, [{"op": "remove", "path": "/a/01"}]),
        ({"a": [1]}, [{"op": "remove", "path": "/a/-1"}]),
        ({"a": [1]}, [{"op": "remove", "path": "/a/１"}]),
        ({"a": 1}, [{"op": "remove", "path": "/b"}]),
        ({"a": 1}, [{"op": "replace", "path": "/b", "value": 1}]),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a/b/c"}]),
        ({"a": 1}, [{"op": "remove", "path": ""}]),
        ({"a": "text"}, [{"op": "add", "path": "/a/0", "value": 1}]),
        ({"a": 1}, [{"op": "copy", "from": "/nowhere", "path": "/b"}]),
    ],
)
def test_what_does_not_fit_is_refused(document: Any, patch: Any) -> None:
    with pytest.raises(Invalid, match="step 0"):
        apply_patch(document, parse_patch(patch))


@pytest.mark.parametrize(
    "patch",
    [
        {},
        "x",
        None,
        [1],
        [{"op": "add"}],
        [{"op": "add", "path": "/a"}],
        [{"op": "copy", "path": "/a"}],
        [{"path": "/a"}],
        [{"op": "ad", "path": "/a", "value": 1}],
        [{"op": ["add"], "path": "/a", "value": 1}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": 1, "value": 1}],
        [{"op": "add", "path": "/~2", "value": 1}],
        [{"op": "add", "path": "/" + "a/" * 70, "value": 1}],
        [{"op": "test", "path": "/a", "value": 1}] * (MOST_STEPS + 1),
    ],
)
def test_what_is_no_patch_is_refused(patch: Any) -> None:
    with pytest.raises(Invalid):
        parse_patch(patch)


def test_a_step_that_fails_undoes_those_before_it() -> None:
    document = {"a": [1, 2], "b": {"c": 1}}
    steps = [
        {"op": "remove", "path": "/a/0"},
        {"op": "add", "path": "/b/d", "value": 1},
        {"op": "test", "path": "/b/c", "value": 2},
    ]
    with pytest.raises(Invalid, match="step 2"):
        apply_patch(document, parse_patch(steps))
    assert document == {"a": [1, 2], "b": {"c": 1}}


def test_copies_of_copies_are_bounded() -> None:
    steps = [{"op": "copy", "from": "/a", "path": f"/a/{number}"} for number in range(60)]
    with pytest.raises(Invalid, match=r"too (large|deep)"):
        apply_patch({"a": {"x": "y"}}, parse_patch(steps))
    steps = [{"op": "copy", "from": "/a", "path": "/a/-"} for _ in range(60)]
    with pytest.raises(Invalid, match=r"too (large|deep)"):
        apply_patch({"a": [[1] * 1000]}, parse_patch(steps))


def test_as_seen_is_what_test_compares_with() -> None:
    steps = parse_patch([{"op": "test", "path": "/a", "value": "***"}])
    assert apply_patch({"a": "hidden"}, steps, as_seen=lambda _: "***") == {"a": "hidden"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab~/", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab~/0-", max_size=2), inner, max_size=3),
    max_leaves=8,
)
pointers = st.lists(st.sampled_from(["", "a", "b", "0", "1", "-", "~0", "~1", "ab"]), max_size=4).map(
    lambda tokens: "".join("/" + token for token in tokens)
)
steps_of = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": pointers,
        "from": pointers,
        "value": json_values,
    }
)


@given(json_values, st.lists(steps_of, max_size=6))
def test_any_patch_of_any_document_works_or_is_refused(document: Any, steps: list[dict[str, Any]]) -> None:
    before = repr(document)
    try:
        made = apply_patch(document, parse_patch(steps))
    except Invalid:
        made = None
    assert repr(document) == before
    assert measure(made)[1] <= 64


@given(json_values, json_values)
def test_same_is_equality_that_knows_booleans(one: Any, other: Any) -> None:
    assert same(one, one)
    assert same(one, other) == same(other, one)
    if same(one, other):
        assert one == other
