"""Who may have which records, on both engines: nobody passes on what the next one may not have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from compacting import Later, compact
from syncing import ALL, OPERATOR, PAIRS, WORLD, Node, settle

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import Key
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.selector import parse_selector
from universal_registry.sync.audience import Reach, barred, with_audience
from universal_registry.sync.greeting import Link
from universal_registry.sync.protocol import Items, encode
from universal_registry.sync.session import Phase, Session

PAYROLL = "namespace=payroll"
SECRET = Key("alias", "payroll", "pay")


@pytest.fixture(params=PAIRS)
async def three(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Node, Node, Node]]:
    """One node of the first engine of a pair, two of the second."""
    first, second = PAIRS[request.param]
    if "postgres" in request.param or request.param == "mixed":
        request.getfixturevalue("postgres")
    nodes = []
    async with AsyncExitStack() as stack:
        for name, opener in (("a", first), ("b", second), ("c", second)):
            (tmp_path / name).mkdir()
            node = await stack.enter_async_context(opener(tmp_path / name))
            await node.replica.enable("cluster", (ALL,))
            node.name = name
            nodes.append(node)
        yield nodes[0], nodes[1], nodes[2]


async def link(here: Node, there: Node) -> Session:
    ours, theirs = await here.replica.identity(), await there.replica.identity()
    without = tuple(map(here.replica.selector, barred(ours.audiences, ours.node, theirs.node)))
    reach = Reach(here.replica.selector(ALL), without)
    return Session(here.replica, Link(theirs.node, ALL, reach, ours.audiences), WORLD)


async def sync(one: Node, other: Node) -> list[bytes]:
    return await settle(await link(one, other), await link(other, one))


async def limit(nodes: tuple[Node, ...], *members: Node) -> None:
    ids = [(await member.replica.identity()).node for member in members]
    for node in nodes:
        await node.replica.audience(PAYROLL, ids, "uid:1000")


async def put(node: Node, command: str) -> None:
    document = {"kind": "alias", "namespace": "payroll", "name": "pay", "spec": {"command": command}}
    await node.service.put({**document, "classification": "ZshAlias"}, actor=OPERATOR)


async def command_of(node: Node) -> str | None:
    record = await node.store.get(SECRET)
    return None if record is None else str(record.spec["command"])


async def test_a_relay_passes_nothing_on_to_whom_it_is_not_for(three: tuple[Node, Node, Node]) -> None:
    a, relay, c = three
    await limit(three, a, relay)
    await put(a, "for-a-and-b-alone")
    await a.set("gs", command="git status")
    await sync(a, relay)
    frames = await sync(relay, c)
    assert await command_of(relay) == "for-a-and-b-alone"
    assert await c.spec("gs") == {"command": "git status"}
    assert await command_of(c) is None
    assert not any(b"payroll" in frame or b"alone" in frame for frame in frames)
    identity = await c.replica.identity()
    assert set(identity.vector) <= {identity.origin}, "it claims to have seen nothing that others have"


async def test_a_relay_without_the_record_takes_none_in_and_passes_none_on(three: tuple[Node, Node, Node]) -> None:
    a, relay, c = three
    await limit(three, a, c)
    await put(a, "one")
    await sync(a, relay)
    await sync(relay, c)
    assert (await command_of(relay), await command_of(c)) == (None, None)
    await sync(a, c)
    assert await command_of(c) == "one"
    await sync(relay, c)
    assert await command_of(relay) is None


async def test_when_all_may_have_it_again_everybody_gets_it(three: tuple[Node, Node, Node]) -> None:
    a, b, c = three
    await put(a, "one")
    await sync(a, c)
    await limit(three, a, b)
    await put(a, "two")
    await sync(a, b)
    await sync(b, c)
    await sync(a, c)
    assert await command_of(c) == "one", "what it had stays"
    await limit(three)
    await sync(b, c)
    assert [await command_of(node) for node in three] == ["two", "two", "two"]
    await sync(a, c)
    assert not await c.reviews.keys(10)


async def test_who_never_had_it_gets_it_when_all_may(three: tuple[Node, Node, Node]) -> None:
    a, b, c = three
    await limit(three, a, b)
    await put(a, "one")
    await a.set("gs", command="git status")
    await sync(a, b)
    await sync(b, c)
    await limit(three)
    await sync(b, c)
    await sync(a, b)
    await sync(a, c)
    assert [await command_of(node) for node in three] == ["one", "one", "one"]


async def test_when_all_may_have_it_again_a_short_log_keeps_nothing_back(three: tuple[Node, Node, Node]) -> None:
    a, b, c = three
    await put(a, "one")
    await sync(a, c)
    await limit(three, a, b)
    await put(a, "two")
    await a.set("gs", command="git status")
    await sync(a, b)
    watched: Any = a
    await compact(watched, values=2, lines=2)
    assert (await a.service.log.horizon()).lines == 2
    await limit(three)
    await sync(b, c)
    await sync(a, c)
    assert [await command_of(node) for node in three] == ["two", "two", "two"]


async def test_what_was_deleted_and_purged_meanwhile_goes_where_it_had_stayed(three: tuple[Node, Node, Node]) -> None:
    a, b, c = three
    await put(a, "one")
    await sync(a, c)
    await limit(three, a, b)
    await a.service.delete(SECRET, actor=OPERATOR)
    await sync(a, b)
    a.books.world = Later(timedelta(days=31))
    assert await a.reviews.purge() == 1
    assert await command_of(c) == "one"
    await limit(three)
    await sync(a, c)
    await sync(b, c)
    assert [await command_of(node) for node in three] == [None, None, None]


async def test_other_audiences_are_refused_on_both_sides(three: tuple[Node, Node, Node]) -> None:
    a, b, c = three
    await limit((a,), a, c)
    left, right = await link(a, b), await link(b, a)
    hello = await left.open()
    await right.open()
    for frame in await right.receive(hello[0]):
        await left.receive(frame)
    assert (right.phase, left.phase) == (Phase.ENDED, Phase.ENDED)
    assert [session.refused and session.refused[0] for session in (left, right)] == ["audiences", "audiences"]


async def test_nobody_is_told_of_records_that_he_asks_for_out_of_turn(three: tuple[Node, Node, Node]) -> None:
    """By the way that mends differences anything could be named."""
    a, _, c = three
    await limit(three, a)
    await put(a, "for-a-alone")
    left, right = await link(a, c), await link(c, a)
    for frame in await right.open():
        await left.open()
        await left.receive(frame)
    answers = await left.receive(encode(Items(buckets={"0": ((*SECRET, "0" * 32),)})))
    assert left.phase is Phase.ENDED
    assert (left.refused or ("", ""))[0] == "malformed"
    assert not any(b"alone" in frame for frame in answers)


async def test_an_audience_is_of_keys_and_in_the_audit(three: tuple[Node, Node, Node]) -> None:
    a, _, _ = three
    with pytest.raises(Invalid, match="keys alone"):
        await a.replica.audience("labels.tier=x", ["00000000"], "uid:1000")
    await limit((a,), a)
    assert (await a.replica.identity()).audiences == {PAYROLL: ((await a.replica.identity()).node,)}


def test_who_is_barred() -> None:
    audiences = with_audience({}, PAYROLL, ["bb", "aa", "aa"])
    assert audiences == {PAYROLL: ("aa", "bb")}
    assert barred(audiences, "aa", "bb") == []
    assert barred(audiences, "aa", "cc") == [PAYROLL]
    assert with_audience(audiences, PAYROLL, []) == {}
    reach = Reach(parse_selector("", load_catalogue()), (parse_selector(PAYROLL, load_catalogue()),))
    assert reach.covers(Key("alias", "default", "pay"))
    assert not reach.covers(SECRET)
