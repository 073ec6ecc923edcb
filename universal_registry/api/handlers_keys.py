"""The keys that values are sealed with."""

from __future__ import annotations

import msgspec

from universal_registry.api.context import Call, Context, body_as
from universal_registry.api.http import Response, json_response


class RetireBody(msgspec.Struct, forbid_unknown_fields=True):
    """The key to give up."""

    kid: str


async def keys(context: Context, call: Call) -> Response:
    """The keys, and the rotation under way. `count`: also how many rows each is in, which reads the whole log."""
    return json_response(await context.observed.keys.listing(count=call.request.flag("count")))


async def rotate(context: Context, call: Call) -> Response:
    """Begin a rotation, or find the one under way; the daemon goes on with it. `resume`: begin none."""
    return json_response(await context.observed.keys.rotate(call.who.name, resume=call.request.flag("resume")))


async def retire(context: Context, call: Call) -> Response:
    """Give up a key with which nothing is sealed any more."""
    body = await body_as(RetireBody, call)
    return json_response(await context.observed.keys.retire(body.kid, call.who.name))
