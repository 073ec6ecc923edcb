"""The routes of studios: a part of the one table (`routes.py`)."""

from __future__ import annotations

from universal_registry.api import handlers_nexus as nexus
from universal_registry.api.auth import Scope
from universal_registry.api.context import BULK_LIMITS
from universal_registry.api.params import LIMIT, THERE, Param
from universal_registry.api.route import Route

_BINDINGS = "/v1/-/nexus/bindings"
_STUDIO = Param("studio", "only of this studio")

NEXUS_ROUTES: tuple[Route, ...] = (
    Route(
        "GET", _BINDINGS, nexus.nexus_bindings, Scope.READ, "Which record is which component of a studio", (_STUDIO,)
    ),
    Route("POST", _BINDINGS, nexus.nexus_bind, Scope.PROPAGATE, "Say which component a record is", body=nexus.BindBody),
    Route("DELETE", _BINDINGS + "/{name}", nexus.nexus_unbind, Scope.PROPAGATE, "Forget a binding"),
    Route(
        "POST", "/v1/-/nexus/{studio}/sync", nexus.nexus_sync, Scope.WRITE,
        "Acknowledge, push and pull in one exchange", body=nexus.SyncBody, body_limit=BULK_LIMITS.body,
    ),
    Route(
        "GET", "/v1/-/nexus/history", nexus.nexus_history, Scope.READ, "What was exchanged with studios, newest first",
        (Param("entry", "`[kind/]name`"), THERE, _STUDIO, LIMIT),
    ),
)  # fmt: skip
