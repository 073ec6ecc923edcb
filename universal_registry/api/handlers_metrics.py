"""The figures, for Prometheus."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from universal_registry.api.context import Call, Context
from universal_registry.api.http import Response
from universal_registry.observe.figures import Figures
from universal_registry.registry.key_control import KeyControl


async def metrics(context: Context, call: Call) -> Response:
    """All metrics in the text format of Prometheus, or in OpenMetrics for who asks for that. Answers also while the
    database is gone: then without what is stored there."""
    from universal_registry.observe.prometheus import exposition

    figures = without_names(await context.observed.figures.read(), context.observed.keys)
    # In a thread: ten lines for each target take their time, and other requests go on meanwhile.
    body, content_type = await asyncio.to_thread(exposition, figures, call.request.header("accept"))
    return Response(headers=(("content-type", content_type),), body=body)


def without_names(figures: Figures, keys: KeyControl) -> Figures:
    """The figures with digests instead of the names of targets and peers, where `encrypt_metrics` asks for that."""
    if not keys.settings.encrypt_metrics or figures.stored is None:
        return figures
    targets = tuple(replace(each, target=keys.digest(each.target)) for each in figures.stored.targets)
    peers = tuple(replace(each, peer=keys.digest(each.peer)) for each in figures.stored.peers)
    return replace(figures, stored=replace(figures.stored, targets=targets, peers=peers))
