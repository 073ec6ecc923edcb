"""Reading one's own writes: a read that asks for a revision waits until it is here."""

from __future__ import annotations

import asyncio

from universal_registry.api.context import Context
from universal_registry.kernel.errors import ShuttingDown, TimedOut

SECONDS = 10.0
_NET_SECONDS = 1.0


async def reached(context: Context, revision: int) -> None:
    """Wait until the log has that revision. Raises TimedOut after SECONDS, ShuttingDown."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SECONDS
    while True:
        wakeup = context.wakeup.ticket()  # before the look: a commit during it is not missed
        head = (await context.service.log.head()).revision
        if head >= revision:
            return
        if context.wakeup.closing:
            raise ShuttingDown("the server stops", hint="ask again in a moment")
        left = until - loop.time()
        if left <= 0:
            raise TimedOut(
                f"revision {revision} is not here; the newest is {head}",
                hint="was it written to this registry?",
                head=head,
            )
        try:
            async with asyncio.timeout(min(left, _NET_SECONDS)):
                await wakeup.wait()
        except TimeoutError:
            continue
