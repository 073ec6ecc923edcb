"""The change log, read by cursor; a reader that has everything may wait for more (long poll)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from universal_registry.api.context import Call, Context
from universal_registry.api.documents import change_document, ndjson, ndjson_response
from universal_registry.api.http import Request, Response
from universal_registry.kernel.errors import UsageError
from universal_registry.log.change import Change
from universal_registry.log.cursor import Cursor, parse_cursor

LINES = 1000
MOST_LINES = 5000
LONGEST_WAIT = 60
_NET_SECONDS = 1.0


async def changes(context: Context, call: Call) -> Response:
    """Whole revisions after a cursor, one change a line, and `{"cursor": ...}` as the last line.

    With `wait`, an answer without changes is held back until there is one, the time is over or the server stops.
    """
    request = call.request
    limit = request.integer("limit", LINES, 1, MOST_LINES)
    wait = request.integer("wait", 0, 0, LONGEST_WAIT)
    lines, cursor = await _read(context, await _start(context, request), limit, wait)
    body = ndjson([*(change_document(context, line) for line in lines), {"cursor": str(cursor)}])
    return ndjson_response(body, headers=(("registry-cursor", str(cursor)),))


async def _start(context: Context, request: Request) -> Cursor | None:
    after, origin = request.value("after"), request.value("from")
    if after and origin:
        raise UsageError("`after` and `from` are both given", hint="`from` takes a cursor too")
    word = after or origin or "beginning"
    if word == "beginning":
        return None
    if word == "now":
        return (await context.service.log.head()).cursor
    if word == "list":
        raise UsageError("`list` is for watches", hint="GET /v1/-/watch?from=list")
    return parse_cursor(word)


async def _read(context: Context, after: Cursor | None, limit: int, wait: int) -> tuple[Sequence[Change], Cursor]:
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while True:
        wakeup = context.wakeup.ticket()  # before the look: a commit during it is not missed
        lines, cursor = await context.service.changes(after, limit)
        left = until - loop.time()
        if lines or left <= 0 or context.wakeup.closing:
            return lines, cursor
        after = cursor
        # The wake-up does the work; the limit is a net under it (W14).
        try:
            async with asyncio.timeout(min(left, _NET_SECONDS)):
                await wakeup.wait()
        except TimeoutError:
            continue
