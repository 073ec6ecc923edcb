"""What is on its way between two registries at once, and what is said of vectors, on both engines."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
from syncing import OPERATOR, Node, session_with, settle, sync

from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import SystemWorld
from universal_registry.sync.outgoing import WINDOW
from universal_registry.sync.ports import Peer
from universal_registry.sync.session import AGAIN_SECONDS, Phase, Session
from universal_registry.sync.version import LIFE, Known, State, Version

SMALL = 600
"""Bytes of a batch: two or three records."""


class Later(SystemWorld):
    """Some seconds later."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def frames_of(frames: list[bytes], kind: str) -> list[dict[str, Any]]:
    return [frame for frame in map(msgspec.json.decode, frames) if frame["t"] == kind]


async def greeted(a: Node, b: Node) -> tuple[Session, Session, list[bytes]]:
    """Sessions of both ends, and what a sends first: as much of its feed as may be on its way."""
    left, right = await session_with(a, b), await session_with(b, a, batch_bytes=SMALL)
    [hello], [other] = await left.open(), await right.open()
    [since] = await right.receive(hello)
    await left.receive(other)
    return left, right, await left.receive(since)


async def fill(node: Node, count: int) -> None:
    for number in range(count):
        await node.set(f"n{number}", command="x" * 50)


async def test_some_batches_are_on_their_way_at_once(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await fill(a, 30)
    left, right, batches = await greeted(a, b)
    assert len(batches) == WINDOW
    sent = frames_of(batches, "batch")
    assert all(one["end"] == other["start"] for one, other in pairwise(sent)), "in order, no gap"
    assert await left.woken() == [], "no more than that before the first is acknowledged"
    [ack] = await right.receive(batches[0])
    assert len(await left.receive(ack)) == 1
    assert await left.receive(ack) == [], "an acknowledgement that comes twice makes room once"


async def test_what_was_lost_on_its_way_is_asked_for_again(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await fill(a, 30)
    left, right, batches = await greeted(a, b)
    asked = await right.receive(batches[1])
    assert frames_of(asked, "since")[0]["cursor"] == 0
    assert await b.spec("n3") is None, "nothing is taken in out of order"
    for late in batches[2:]:
        assert await right.receive(late) == [], "for what is behind the same gap it is not asked again"
    waiting = await left.receive(asked[0])
    while waiting:
        acks = [each for frame in waiting for each in await right.receive(frame)]
        waiting = [each for ack in acks for each in await left.receive(ack)]
    for number in range(30):
        assert await b.spec(f"n{number}") == {"command": "x" * 50}
    assert right.peer.cursor == left.peer.acked == (await a.replica.identity()).feed


async def test_what_both_have_changed_goes_each_way_once(pair: tuple[Node, Node]) -> None:
    """Merging it here moves it behind what was sent already: it does not go again."""
    a, b = pair
    await fill(a, 20)
    await sync(a, b)
    for node in pair:
        for number in range(20):
            await node.set(f"n{number}", command=node.name * 50)
    left, right = [await session_with(*each, batch_bytes=SMALL) for each in ((a, b), (b, a))]
    sent = frames_of(await settle(left, right), "batch")
    assert sum(len(batch.get("recs", ())) for batch in sent) == 2 * 20
    for node in pair:
        assert await node.spec("n7") == {"command": "b" * 50}
        assert len(await node.reviews.reviews(30)) == 20


async def test_what_is_changed_after_it_was_sent_goes_again(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await fill(a, 30)
    left, right, batches = await greeted(a, b)
    await a.set("n0", command="later")
    await a.service.delete(Key("alias", "default", "n1"), actor=OPERATOR)
    while batches:
        acks = [each for frame in batches for each in await right.receive(frame)]
        batches = [each for ack in acks for each in await left.receive(ack)]
    assert await b.spec("n0") == {"command": "later"}
    assert await b.spec("n1") is None


async def test_when_all_has_arrived_nobody_waits_to_compare(pair: tuple[Node, Node]) -> None:
    a, b = pair
    await sync(a, b)
    world = Later()
    left, right = await session_with(a, b, world), await session_with(b, a, world)
    await settle(left, right)
    await a.set("gs", command="git status")
    await b.set("ll", command="ls -l")
    world.seconds = AGAIN_SECONDS
    queues = {right: await left.woken(), left: await right.woken()}
    sent: list[bytes] = []
    while any(queues.values()):
        for receiver, sender in ((right, left), (left, right)):
            frames, queues[receiver] = queues[receiver], []
            sent += frames
            for frame in frames:
                queues[sender] += await receiver.receive(frame)
    assert (left.phase, right.phase) == (Phase.IN_SYNC, Phase.IN_SYNC), "and no tick has passed"
    await a.set("gs", command="git status -sb")
    [batch] = await left.woken()
    [ack] = await right.receive(batch)
    assert await left.receive(ack) == [], "but not after each change"


async def test_the_echo_of_a_change_makes_nobody_ask_again(pair: tuple[Node, Node]) -> None:
    """What came from a peer is a position of the own feed, too, which that peer is never sent."""
    a, b = pair
    left, right = await session_with(a, b), await session_with(b, a)
    await settle(left, right)
    await a.set("gs", command="git status")
    [batch] = await left.woken()
    [ack, *_] = await right.receive(batch)
    await left.receive(ack)
    await b.set("ll", command="ls -l")
    [batch] = await right.woken()
    [ack] = await left.receive(batch)
    assert frames_of([ack], "ack")
    assert await a.spec("ll") == {"command": "ls -l"}


async def test_a_vector_goes_over_a_link_once(pair: tuple[Node, Node]) -> None:
    """Each restored or copied node leaves an origin for ever: frames must not hold all there ever were."""
    a, b = pair
    origins = [f"0000000c-{number:08x}" for number in range(500)]
    version = Version(origins[0], 1, 1, "ZshAlias")
    state = State({LIFE: (version,), "/classification": (version,), "/spec/command": (version,)})
    vector = dict.fromkeys(origins, 1)
    await a.replica.take(Peer(node="0000000c"), [Known(Key("alias", "default", "old"), state)], vector, joins=True)
    await sync(a, b)
    assert (await b.replica.identity()).vector.keys() >= set(origins)
    await a.set("gs", command="git status")
    sent = await sync(a, b)
    told = [frame for frame in sent if origins[7].encode() in frame]
    assert frames_of(told, "hello") == [*map(msgspec.json.decode, told)], "in both hellos, and in nothing else"
    assert len(told) == 2
    assert await b.spec("gs") == {"command": "git status"}
