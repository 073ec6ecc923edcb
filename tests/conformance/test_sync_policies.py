"""Conflicts by the rule that was chosen for a kind, arrays whose items merge one by one, and secrets that stay."""

from __future__ import annotations

from typing import Any

import pytest
from syncing import GS, OPERATOR, Node, session_with, sync

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import Key

PAY = Key("service", "default", "pay")
DESK = Key("layout", "default", "desk")
TOKEN = Key("secret", "default", "token")


async def both_edit(pair: tuple[Node, Node]) -> None:
    """One field of one record on both sides, while they are apart; the second is the later."""
    a, b = pair
    await a.set("gs", command="first")
    await sync(a, b)
    await a.set("gs", command="of a")
    await b.set("gs", command="of b")


async def test_by_newest_nobody_is_asked(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for node in pair:
        await node.reviews.policies({"alias": "newest"})
    await both_edit(pair)
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "of b"}
        assert await node.reviews.reviews(10) == []
    review = await a.reviews.review(GS)
    assert review is not None
    assert review.conflicts == ()
    [[known], _] = await a.replica.states([GS])
    assert [version.value for version in known.state.fields["/spec/command"]] == ["of b", "of a"], "the loser is kept"


async def test_a_node_can_be_preferred_whatever_the_clocks_say(pair: tuple[Node, Node]) -> None:
    a, b = pair
    preferred = (await a.replica.identity()).node
    for node in pair:
        await node.reviews.policies({"*": f"prefer-node:{preferred}"})
    await both_edit(pair)
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "of a"}
        assert await node.reviews.reviews(10) == []
    await b.set("gs", command="again of b")
    await sync(a, b)
    for node in pair:
        assert await node.spec("gs") == {"command": "again of b"}, "b saw what a wrote: that is no conflict"


async def test_a_policy_is_of_its_kind_alone(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for node in pair:
        await node.reviews.policies({"service": "newest"})
    await both_edit(pair)
    await sync(a, b)
    for node in pair:
        assert [review.key for review in await node.reviews.reviews(10)] == [GS]


async def test_nodes_with_other_policies_do_not_talk(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await a.reviews.policies({"alias": "newest"})
    left, right = await session_with(a, b), await session_with(b, a)
    [hello] = await left.open()
    await right.open()
    await right.receive(hello)
    assert right.refused is not None
    assert right.refused[0] == "policies"
    with pytest.raises(Invalid, match="policy"):
        await a.reviews.policies({"alias": "oldest"})


async def put(node: Node, key: Key, classification: str, **spec: Any) -> None:
    document = {**key._asdict(), "classification": classification, "spec": spec}
    await node.service.put(document, actor=OPERATOR)


async def test_of_a_set_each_item_is_added_and_removed_on_its_own(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await put(a, PAY, "ApiService", depends_on=["db", "old"])
    await sync(a, b)
    await put(a, PAY, "ApiService", depends_on=["db"])
    await put(b, PAY, "ApiService", depends_on=["db", "old", "new"])
    await sync(a, b)
    for node in pair:
        assert (await node.service.get(PAY)).spec == {"depends_on": ["db", "new"]}
        assert await node.reviews.reviews(10) == []
    await put(a, PAY, "ApiService", depends_on=[])
    await sync(a, b)
    for node in pair:
        assert (await node.service.get(PAY)).spec.get("depends_on", []) == []


async def test_items_of_a_list_merge_by_the_field_that_names_them(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await put(a, DESK, "TmuxLayout", panes=[{"title": "logs", "command": "tail"}, {"title": "top", "command": "top"}])
    await sync(a, b)
    await put(a, DESK, "TmuxLayout", panes=[{"title": "logs", "command": "less"}, {"title": "top", "command": "top"}])
    await put(
        b,
        DESK,
        "TmuxLayout",
        panes=[{"title": "logs", "command": "tail", "size": "50%"}, {"title": "disk", "command": "df"}],
    )
    await sync(a, b)
    for node in pair:
        assert (await node.service.get(DESK)).spec == {
            "panes": [{"title": "disk", "command": "df"}, {"title": "logs", "command": "less", "size": "50%"}]
        }
        assert await node.reviews.reviews(10) == []


async def test_a_record_waits_where_its_secret_is_missing_until_it_is_set_there(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await put(a, TOKEN, "TokenSecret", value="of a", rotate_days=90)
    frames = await sync(a, b)
    assert not any(b"of a" in frame or b"$sealed" in frame for frame in frames)
    [review] = await b.reviews.reviews(10)
    assert review.key == TOKEN
    assert "value" in review.held
    assert await b.store.get(TOKEN) is None
    await put(b, TOKEN, "TokenSecret", value="of b", rotate_days=90)
    assert await b.reviews.reviews(10) == []
    await put(a, TOKEN, "TokenSecret", value="of a", rotate_days=30)
    await sync(a, b)
    sealed = []
    for node in pair:
        spec = (await node.service.get(TOKEN)).spec
        assert spec["rotate_days"] == 30
        sealed.append(spec["value"])
        assert await node.reviews.reviews(10) == []
    assert sealed[0] != sealed[1], "each keeps its own"
