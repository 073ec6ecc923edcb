"""Work that is over before anybody goes on, whoever cancels meanwhile: in a thread, or of a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


async def to_the_end(work: asyncio.Future[Result]) -> Result:
    """Wait for it, whoever cancels meanwhile: what it works with must not be touched before it has ended."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from work.exception()
    return work.result()


async def in_thread(work: Callable[Given, Result], *args: Given.args, **named: Given.kwargs) -> Result:
    """Do it in a thread of the loop, to the end."""
    return await to_the_end(asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **named)))
