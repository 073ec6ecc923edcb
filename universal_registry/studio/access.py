"""What the server of studios needs of whoever starts it: ways to the registry."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from mcp.server.context import ServerRequestContext

from universal_registry.client.http import Caller
from universal_registry.client.watch import WatchClient

_PROBE = "/v1/-/kinds/alias"


class Access(Protocol):
    """A registry, by its daemon or in this process."""

    def caller(self, token: str | None) -> AbstractContextManager[Caller]:
        """Somebody to ask, for one thread. `token`: whose rights count; None: those of the user of this process."""
        ...

    def watcher(self, token: str | None) -> WatchClient:
        """Somebody who tells of changes, with the same rights. Raises Unreachable when no daemon runs."""
        ...

    def follower(self) -> WatchClient:
        """The same with the rights of this process, for somebody patient: a daemon that does not run is waited for."""
        ...


def token_of(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """The token in the request's header; None when the request came over standard input."""
    if ctx.request is None:
        return None
    return str(ctx.request.headers.get("authorization", "")).removeprefix("Bearer ")


def check_token(access: Access, token: str) -> None:
    """Ask the registry whether it takes the token. Raises the RegistryError that it answers with."""
    with access.caller(token) as caller:
        caller.request("GET", _PROBE)
