"""A registry that keeps the same records as the one that started this, and kills itself (-9) while it takes a batch in.

    child_sync.py FOLDER SETTINGS WHEN BATCH

SETTINGS: of its PostgreSQL, as JSON; empty: SQLite in FOLDER. WHEN: `before` the commit of that batch, or `after` it,
before anything is answered. Lines go in and out: first each side's node, then frames in hex.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))

from syncing import ALL, WORLD, Node, on_postgres, sqlite

from universal_registry.kernel.settings import PostgresSettings
from universal_registry.storage.sync_postgres import PgSyncTables
from universal_registry.storage.sync_sqlite import SqliteSyncTables
from universal_registry.storage.sync_store import Replica
from universal_registry.sync.audience import Reach
from universal_registry.sync.greeting import Link
from universal_registry.sync.session import Session

BATCH_BYTES = 600


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die(when: str, batch: int) -> None:
    """The last statement of a batch's transaction is that of the peer and its cursor."""
    taken = 0
    take = Replica.take
    for tables in (SqliteSyncTables, PgSyncTables):

        async def ran(self: Any, name: str, params: Any, run: Any = tables.run_each) -> None:
            nonlocal taken
            await run(self, name, params)
            taken += name == "put_peer"
            if when == "before" and taken == batch:
                kill()

        tables.run_each = ran  # type: ignore[method-assign]

    async def took(self: Replica, *given: Any, **named: Any) -> Any:
        applied = await take(self, *given, **named)
        if when == "after" and taken == batch:
            kill()
        return applied

    Replica.take = took  # type: ignore[method-assign]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def work(node: Node) -> None:
    own = await node.replica.enable("home", (ALL,))
    say(own.node)
    link = Link(sys.stdin.readline().strip(), ALL, Reach(node.replica.selector(ALL)))
    session = Session(node.replica, link, WORLD, batch_bytes=BATCH_BYTES)
    frames = await session.open()
    while True:
        for frame in frames:
            say(frame.hex())
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        frames = await session.receive(bytes.fromhex(line))


async def main() -> None:
    folder, settings, when, batch = sys.argv[1:]
    die(when, int(batch))
    if settings:
        async with on_postgres(msgspec.json.decode(settings, type=PostgresSettings)) as node:
            await work(node)
    else:
        async with sqlite(Path(folder)) as node:
            await work(node)


asyncio.run(main())
