"""Health, for load balancers, service managers and `curl`; and the description of the API."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.api.context import Call, Context
from universal_registry.api.http import JSON_TYPE, Response, json_response
from universal_registry.observe.health import HealthSnapshot, WorkerState
from universal_registry.observe.kept_history import GENERAL


def _told(snapshot: HealthSnapshot, **more: Any) -> Response:
    shown = {name: value for name, value in msgspec.structs.asdict(snapshot).items() if value not in ("", None)}
    return json_response({**shown, **more}, status=200 if snapshot.ok else 503)


async def health_live(context: Context, _: Call) -> Response:
    """200 while the process answers."""
    return _told(context.health.live())


async def health_db(context: Context, _: Call) -> Response:
    """200 while the database can be read and written, else 503 with the reason."""
    return _told(await context.health.db())


async def health_ready(context: Context, _: Call) -> Response:
    """200 once the daemon does its whole work, else 503 with the reason."""
    return _told(await context.health.ready())


async def health(context: Context, _: Call) -> Response:
    """All of it in words: what is wrong, how each worker does, and what somebody should know of. 200 or 503, as
    ready."""
    workers = {each.name: _worker(each) for each in context.health.workers()}
    trouble = context.observed.figures.backup_trouble()
    # Anybody may ask this: why, with the names of folders, is said by the status.
    warnings = [f"{trouble.partition(': ')[0]}; ureg status says why"] if trouble else []
    if any(name.startswith("target ") for name in context.observed.compaction.kept):
        warnings.append(f"{GENERAL}; ureg status says which")
    return _told(await context.health.ready(), workers=workers, warnings=warnings)


def _worker(state: WorkerState) -> dict[str, Any]:
    return {"state": state.word, "deaths": state.deaths, "silent_seconds": state.silent}


async def openapi(context: Context, _: Call) -> Response:
    """The OpenAPI document."""
    return Response(headers=(("content-type", JSON_TYPE),), body=context.openapi())
