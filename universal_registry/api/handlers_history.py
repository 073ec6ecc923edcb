"""The past of a record."""

from __future__ import annotations

from typing import Any

from universal_registry.api.context import Call, Context, needed
from universal_registry.api.http import Response, json_response
from universal_registry.kernel.ids import DEFAULT_NAMESPACE
from universal_registry.log.change import Change

PAGE = 100
MOST_LINES = 1000
_MOST_REVISION = 999_999_999


async def history(context: Context, call: Call) -> Response:
    """Each change of the record and each event that it sent, newest first: who, when, why, and which fields.

    The record itself at one of these revisions: `GET .../{name}?rev=REVISION`.
    """
    request = call.request
    namespace = request.value("namespace") or DEFAULT_NAMESPACE
    key = context.service.key(needed(call, "kind"), namespace, needed(call, "name"))
    limit = request.integer("limit", PAGE, 1, MOST_LINES)
    before = request.integer("before", 0, 1, _MOST_REVISION) or None
    head = (await context.service.log.head()).revision
    lines = await context.service.history(key, limit=limit, before=min(before or head + 1, head + 1))
    if not lines and before is None:
        await context.service.get(key)  # says that there is none, and what may have been meant
    more = lines[-1].revision if len(lines) == limit else None
    return json_response(
        {"items": [_line(line) for line in lines], "next": more, "revision": head},
        headers=(("registry-revision", str(head)),),
    )


def _line(line: Change) -> dict[str, Any]:
    return {
        **line.key._asdict(),
        "revision": line.revision,
        "op": line.op,
        "generation": line.generation,
        "at": line.at,
        "actor": line.actor,
        "message": line.message,
        "changed": list(line.changed_fields),
        "uid": line.uid,
    }
