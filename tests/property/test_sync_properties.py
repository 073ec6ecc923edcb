"""Laws of merging, of leaves, and of frames that come damaged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.kernel.errors import Malformed, TooLarge
from universal_registry.kernel.ids import Key
from universal_registry.registry.record import CONTENT_FIELDS, Content
from universal_registry.sync.digest import Tree, different_keys, digest_of
from universal_registry.sync.merge import Writer, merged, written
from universal_registry.sync.paths import MOST_LEAVES, flatten, shown_leaves, unflatten
from universal_registry.sync.protocol import FRAME_BYTES, Ack, Batch, decode, encode, record_of
from universal_registry.sync.version import NOTHING, Known, State, Vector, joined

NODES = ("0000000a-00000001", "0000000b-00000001", "0000000c-00000001")
PATHS = ("/title", "/spec/a", "/spec/b")
KEY = Key("alias", "default", "gs")


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[State, Vector]]:
    """What three nodes have come to by writing and by taking in each other's state: never an impossible state."""
    nodes: list[tuple[State, Vector]] = [(NOTHING, {}) for _ in NODES]
    for number in range(1, draw(st.integers(1, 12)) + 1):
        here = draw(st.integers(0, 2))
        state, vector = nodes[here]
        if draw(st.booleans()):
            leaves = draw(st.dictionaries(st.sampled_from(PATHS), st.integers(0, 3)))
            after = written(state, leaves, Writer(NODES[here], number, draw(st.integers(1, 9))))
            nodes[here] = (after, {**vector, NODES[here]: number})
        else:
            nodes[here] = join(nodes[here], nodes[draw(st.integers(0, 2))])
    return nodes


def join(one: tuple[State, Vector], other: tuple[State, Vector]) -> tuple[State, Vector]:
    made = merged(one[0], one[1], other[0], other[1])
    return State(made.fields), joined(one[1], other[1])


@given(histories())
def test_merging_commutes(nodes: list[tuple[State, Vector]]) -> None:
    a, b, _ = nodes
    assert join(a, b) == join(b, a)


@given(histories())
def test_merging_is_associative(nodes: list[tuple[State, Vector]]) -> None:
    a, b, c = nodes
    assert join(join(a, b), c) == join(a, join(b, c))


@given(histories())
def test_merging_again_changes_nothing(nodes: list[tuple[State, Vector]]) -> None:
    a, b, _ = nodes
    assert join(a, a) == a
    assert join(join(a, b), b) == join(a, b)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
arrays = {"/spec/set": "set", "/spec/by": "list_by:name"}
specs = st.fixed_dictionaries(
    {},
    optional={
        "set": st.lists(json, max_size=4, unique_by=repr),
        "by": st.lists(st.fixed_dictionaries({"name": st.text(max_size=3), "n": json}), max_size=3),
        "any": json,
        "#x": st.dictionaries(st.sampled_from(["#a", "~/", "#", "b"]), json, max_size=3),
    },
)


@given(specs, st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3))
def test_leaves_come_back_as_the_record_that_they_are_of(spec: dict[str, Any], labels: dict[str, str]) -> None:
    content = Content(classification="ZshAlias", title="t", labels=labels, spec=spec)
    leaves = flatten(content, arrays)
    state = written(NOTHING, leaves, Writer(NODES[0], 1, 1))
    assert shown_leaves(state).keys() == leaves.keys()
    back = Content(**unflatten(state))
    for field in CONTENT_FIELDS:
        if field != "spec":
            assert getattr(back, field) == getattr(content, field)
    assert flatten(back, arrays) == leaves
    assert {name: value for name, value in back.spec.items() if name not in ("set", "by")} == {
        name: value for name, value in spec.items() if name not in ("set", "by")
    }


def test_a_large_record_has_few_leaves() -> None:
    spec = {f"m{number}": {"a": 1, "b": 2} for number in range(MOST_LEAVES)}
    assert len(flatten(Content(classification="X", spec=spec), {})) == MOST_LEAVES // 2 * 2 - MOST_LEAVES + 2


frames = st.builds(
    lambda nodes: Batch(start=0, end=9, more=False, vv=nodes[0][1], recs=(record_of(Known(KEY, nodes[0][0])),)),
    histories(),
)


@given(frames)
def test_frames_come_back(frame: Batch) -> None:
    assert decode(encode(frame)) == frame


@given(frames, st.data())
def test_a_damaged_frame_is_refused_or_a_frame(frame: Batch, data: st.DataObject) -> None:
    raw = bytearray(encode(frame))
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(Malformed):
        decode(bytes(raw[:cut]))
    raw[cut] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(raw))
    except Malformed:
        return


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"t":"nope"}',
        '{"t":"ack","cursor":1,"applied":1,"vv":{"me":1}}',
        '{"t":"ack","cursor":1,"applied":1,"vv":{"0000000a-00000001":-1}}',
        '{"t":"ack","cursor":1,"applied":1,"vv":{},"more":1}',
        '{"t":"digest","root":"x"}',
        '{"t":"digest","root":"' + "0" * 32 + '","groups":["' + "0" * 32 + '"]}',
        '{"t":"items","buckets":{"4096":[]}}',
        '{"t":"batch","start":5,"end":4,"more":false,"vv":{}}',
        '{"t":"batch","start":0,"end":4,"more":false,"vv":{},"recs":[["a","b","c",{"/x":[]},{}]]}',
    ],
)
def test_what_is_no_frame_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        decode(text.encode())


def test_a_frame_has_a_size() -> None:
    with pytest.raises(TooLarge):
        decode(b" " * (FRAME_BYTES + 1))
    with pytest.raises(TooLarge):
        encode(Ack(cursor=1, applied=0, vv={f"{number:08x}-00000001": 1 for number in range(60_000)}))


@given(histories())
def test_trees_are_equal_if_and_only_if_the_live_fields_are(nodes: list[tuple[State, Vector]]) -> None:
    trees = []
    for state, _ in nodes[:2]:
        tree = Tree()
        tree.put(Key("alias", "default", "old"), 5)
        tree.put(Key("alias", "default", "old"), 0)
        tree.put(KEY, digest_of(KEY, state, b"k"))
        trees.append(tree)
    live = [
        {path: each for path, each in state.fields.items() if not all(version.gone for version in each)}
        for state, _ in nodes[:2]
    ]
    assert (trees[0].root == trees[1].root) == (live[0] == live[1])
    if live[0] != live[1]:
        groups = trees[0].different_groups(trees[1].groups())
        [bucket] = trees[0].different_buckets(trees[1].buckets(groups))
        assert different_keys(trees[0].items(bucket), trees[1].items(bucket)) == [KEY]
