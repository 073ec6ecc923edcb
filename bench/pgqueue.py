"""The same job for pgqueuer, run by the peers' own Python: `python -m bench.pgqueue install|enqueue|work FOLDER ...`.

`enqueue FOLDER COUNT BYTES`; `work FOLDER URL IN_FLIGHT`: POSTs each job's payload until it is ended. The database is
`pgqueuer` on the socket in FOLDER. The worker's batches and pool as its own documentation has them for throughput.
"""

from __future__ import annotations

import asyncio
import os
import sys


async def _connected(folder: str):  # type: ignore[no-untyped-def]
    import asyncpg
    from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]
    from pgqueuer.queries import Queries  # type: ignore[import-not-found]

    return Queries(AsyncpgDriver(await asyncpg.connect(host=folder, database="pgqueuer", user="registry")))


async def _install(folder: str) -> None:
    await (await _connected(folder)).install()


async def _enqueue(folder: str, number: int, size: int) -> None:
    """Each job by a call and a commit of its own, over 16 connections: as our records are put one by one."""
    left, payload = iter(range(number)), b"b" * size

    async def connection() -> None:
        queries = await _connected(folder)
        for _ in left:
            await queries.enqueue("deliver", payload)

    await asyncio.gather(*(connection() for _ in range(16)))
    used = os.times()
    print(used.user + used.system)


async def _work(folder: str, url: str, in_flight: int) -> None:
    import aiohttp
    import asyncpg
    from pgqueuer import PgQueuer  # type: ignore[import-not-found]
    from pgqueuer.db import AsyncpgPoolDriver

    pool = asyncpg.create_pool(host=folder, database="pgqueuer", user="registry", min_size=2, max_size=10)
    async with pool, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:
        queue = PgQueuer(AsyncpgPoolDriver(pool))

        @queue.entrypoint("deliver")  # type: ignore[untyped-decorator]
        async def deliver(job) -> None:  # type: ignore[no-untyped-def]
            async with session.post(url, data=job.payload, headers={"content-type": "application/json"}) as response:
                await response.read()
                response.raise_for_status()

        await queue.run(batch_size=in_flight, max_concurrent_tasks=2 * in_flight)


def main(role: str, folder: str, *rest: str) -> None:
    """One role of the job."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if role == "install":
            runner.run(_install(folder))
        elif role == "enqueue":
            runner.run(_enqueue(folder, int(rest[0]), int(rest[1])))
        else:
            runner.run(_work(folder, rest[0], int(rest[1])))


if __name__ == "__main__":
    main(*sys.argv[1:])
