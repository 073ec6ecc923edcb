"""A bare aiohttp client in a loop, with no queue behind it: the ceiling for deliveries by this client library.

`python -m bench.client URL COUNT IN_FLIGHT BYTES`: POSTs, unsigned, and prints the CPU seconds that it took.
"""

from __future__ import annotations

import asyncio
import os
import sys

import aiohttp
import uvloop


async def _post_all(url: str, number: int, in_flight: int, size: int) -> None:
    body, left = b"b" * size, iter(range(number))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def one_after_the_other() -> None:
            for _ in left:
                async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
                    await response.read()
                    response.raise_for_status()

        await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_post_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    used = os.times()
    print(used.user + used.system)
