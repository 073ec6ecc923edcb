"""What the server of studios needs of whoever starts it: ways to the registry."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from universal_registry.client.http import Caller
from universal_registry.client.watch import WatchClient


class Access(Protocol):
    """A registry, by its daemon or in this process."""

    def caller(self, token: str | None) -> AbstractContextManager[Caller]:
        """Somebody to ask, for one thread. `token`: whose rights count; None: those of the user of this process."""
        ...

    def watcher(self) -> WatchClient:
        """Somebody who tells of changes, with the rights of this process. Raises Unreachable when no daemon runs."""
        ...

    def follower(self) -> WatchClient:
        """The same for somebody patient: a daemon that does not run is waited for."""
        ...
