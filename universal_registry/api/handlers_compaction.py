"""How far back the change log goes, and making it shorter."""

from __future__ import annotations

from universal_registry.api.context import Call, Context
from universal_registry.api.http import Response, json_response

LONGEST_SECONDS = 60


async def look(context: Context, _: Call) -> Response:
    """Where the log begins, how large it is, what compaction would take away now, and who keeps it from more."""
    return json_response(await context.observed.compaction.look())


async def compact(context: Context, call: Call) -> Response:
    """Compact now, for about `seconds`. Until `done`, ask again; a daemon goes on by itself too."""
    seconds = call.request.integer("seconds", 10, 0, LONGEST_SECONDS)
    return json_response(await context.observed.compaction.run(call.who.name, float(seconds)))
