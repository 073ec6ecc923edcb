"""Kill -9 while a peer's batch is taken in: all of it is there or nothing, and the next session goes on from there."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import msgspec
import pgserver
import pytest
from syncing import ALL, WORLD, Node, on_postgres, sqlite, sync

from universal_registry.kernel.ids import Key
from universal_registry.registry.check import check_registry
from universal_registry.sync.audience import Reach
from universal_registry.sync.greeting import Link
from universal_registry.sync.session import Session

CHILD = Path(__file__).with_name("child_sync.py")
RECORDS = 12
SPEC = {"command": "x" * 50}


async def feed_until_killed(sender: Node, folder: Path, settings: str, when: str, batch: int) -> None:
    """A session with a child, which ends it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, CHILD, folder, settings, when, str(batch), stdin=asyncio.subprocess.PIPE, stdout=-1
    )
    assert child.stdin is not None
    assert child.stdout is not None
    node = (await child.stdout.readline()).decode().strip()
    child.stdin.write(f"{(await sender.replica.identity()).node}\n".encode())
    session = Session(sender.replica, Link(node, ALL, Reach(sender.replica.selector(ALL))), WORLD)
    frames = await session.open()
    while True:
        for frame in frames:
            child.stdin.write(frame.hex().encode() + b"\n")
        line = await child.stdout.readline()
        if not line:
            break
        frames = await session.receive(bytes.fromhex(line.decode()))
    assert await child.wait() == -signal.SIGKILL


async def taken_by(node: Node, sender: str) -> int:
    """How many records it has: as many as it keeps versions of, and the cursor stands behind the last of them."""
    keys = [Key("alias", "default", f"n{number}") for number in range(RECORDS)]
    shown = [key for key in keys if await node.store.get(key) is not None]
    known, _ = await node.replica.states(keys)
    assert [each.key for each in known if each.state.fields] == shown
    identity = await node.replica.identity()
    assert sender not in [origin.partition("-")[0] for origin in identity.vector], "more was to come"
    assert identity.feed == len(shown)
    assert (await node.replica.peer(sender)).cursor == len(shown)
    return len(shown)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_batch_is_taken_in_whole_or_not_at_all(
    engine: str, when: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings, folder = "", tmp_path / "b"
    folder.mkdir()
    if engine == "postgres":
        server: pgserver.Server = request.getfixturevalue("postgres")
        settings = msgspec.json.encode(server.of_folder(folder)).decode()
    (tmp_path / "a").mkdir()
    async with sqlite(tmp_path / "a") as a:
        await a.replica.enable("home", (ALL,))
        for number in range(RECORDS):
            await a.set(f"n{number}", **SPEC)
        sender = (await a.replica.identity()).node
        await feed_until_killed(a, folder, settings, when, 2)
        opened = on_postgres(server.of_folder(folder)) if settings else sqlite(folder)
        async with opened as b:
            of_a_batch = await taken_by(b, sender) // (1 if when == "before" else 2)
            assert 0 < of_a_batch < RECORDS / 2
            await sync(a, b)
            assert [await b.spec(f"n{number}") for number in range(RECORDS)] == [SPEC] * RECORDS
            await check_registry(b.service.records, b.service.log, b.service.event_commitment)
