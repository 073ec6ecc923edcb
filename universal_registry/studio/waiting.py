"""Waiting for changes, for studios that cannot be pushed to: a cursor in; what has changed since, and a cursor, out."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from universal_registry.client.watch import WatchClient
from universal_registry.studio.tools import WaitArguments

_CATCH_UP_SECONDS = 5.0


async def changes_after(client: WatchClient, asked: WaitArguments) -> dict[str, Any]:
    """What is selected of the changes after the cursor: those that are there, else the first ones that come, within the
    timeout. Whole revisions only; `more`: ask again at once. Without a cursor: where to begin.

    Raises the RegistryError that the registry answers with: CursorMismatch (`data["cursor"]`: go on there, after
    reading everything again) when the cursor is of another history."""
    waited = _Waited(asked)
    try:
        async with asyncio.timeout(asked.timeout or _CATCH_UP_SECONDS):
            await waited.read(client)
    except TimeoutError:
        pass  # nothing came: the cursor stays, or has moved past what is not selected
    return {"changes": waited.events, "cursor": waited.cursor, "more": waited.more}


class _Waited:
    """What was told so far."""

    def __init__(self, asked: WaitArguments) -> None:
        self._asked = asked
        self.cursor = asked.cursor
        self.events: list[dict[str, Any]] = []
        self.more = False

    async def read(self, client: WatchClient) -> None:
        """Read until there is something to tell, and all of it; without a timeout no further than what is there."""
        query = {"from": self._asked.cursor or "now", "select": self._asked.select}
        async with aclosing(client.frames(query)) as frames:
            synced = False
            async for frame in frames:
                self.cursor = frame.get("cursor") or self.cursor
                self.events += frame.get("events", ())
                synced = synced or frame["type"] == "synced"
                self.more = len(self.events) >= self._asked.limit
                nothing_to_wait_for = self._asked.cursor is None or not self._asked.timeout
                if self.more or (synced and (self.events or nothing_to_wait_for)):
                    return
