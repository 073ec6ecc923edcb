"""Tokens, and the audit of who did what with them and without."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.api.context import Call, Context, body_as
from universal_registry.api.http import Response, json_response
from universal_registry.api.moments import past_moment, span
from universal_registry.log.audit import Asked
from universal_registry.registry.tokens import Token

MOST_ROWS = 1000


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make. `expires`: after so long, as `90d` or `12h`; never if absent."""

    name: str
    scopes: list[str]
    expires: str | None = None


# --- tokens ---------------------------------------------------------------------------------------------------------


async def add_token(context: Context, call: Call) -> Response:
    """Make a token. It is in this answer and in no other; kept is its hash."""
    body = await body_as(TokenBody, call)
    expires = None if body.expires is None else span(body.expires)
    token, secret = await context.observed.tokens.add(body.name, body.scopes, actor=call.who.name, expires=expires)
    return json_response({**_token_view(context, token), "token": secret})


async def tokens(context: Context, _: Call) -> Response:
    """All tokens but that of `config/admin.token`, without what they are."""
    return json_response({"items": [_token_view(context, each) for each in await context.observed.tokens.all()]})


async def revoke_token(context: Context, call: Call) -> Response:
    """Revoke a token: it opens nothing from now on, on no connection."""
    await context.observed.tokens.revoke(call.params["name"], actor=call.who.name)
    return json_response({"name": call.params["name"], "result": "revoked"})


def _token_view(context: Context, token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "scopes": list(token.scopes),
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
        "state": "expired" if context.observed.tokens.is_over(token) else "valid",
    }


# --- audit ----------------------------------------------------------------------------------------------------------


async def audit(context: Context, call: Call) -> Response:
    """Who did or was refused what, newest first: lines of the change log and rows of both audit trails."""
    request = call.request
    await context.observed.denials.flush(now=True)
    asked = Asked(
        since=_since(context, request.value("since")),
        actor=request.value("actor") or None,
        action=request.value("action") or None,
        limit=request.integer("limit", 100, 1, MOST_ROWS),
    )
    return json_response({"items": await context.observed.audit.newest(asked)})


async def anchor(context: Context, _: Call) -> Response:
    """The ends of all hash chains in one line, to be kept elsewhere."""
    found = await context.observed.audit.anchor()
    return json_response({"anchor": str(found), "revision": found.log.number})


def _since(context: Context, text: str) -> str:
    """The moment as the stores write times."""
    moment = past_moment(text, context.service.world.now(), "since")
    if moment is None:
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
