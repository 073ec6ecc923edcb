"""What a route is."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from universal_registry.api.auth import Scope
from universal_registry.api.context import BODY_LIMIT, Handler
from universal_registry.api.params import Param


class Route(NamedTuple):
    """`body`: a model of the JSON body, `"record"`, or `"records"` (see openapi.py). `answer`: what 200 carries."""

    method: str
    pattern: str
    handler: Handler
    scope: Scope
    summary: str
    query: tuple[Param, ...] = ()
    body: type[msgspec.Struct] | str | None = None
    answer: str = "json"
    body_limit: int = BODY_LIMIT
    keyed: bool = False
    """It takes an Idempotency-Key."""

    @property
    def segments(self) -> list[str]:
        return self.pattern.split("/")[1:]
