"""The push: each change of a record is told to those who have subscribed to its resource, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
)
from mcp.shared.exceptions import MCPError

from universal_registry.kernel.errors import CursorMismatch, RegistryError, Unauthenticated
from universal_registry.studio.access import Access, check_token, token_of
from universal_registry.studio.resources import uri_of

_READY_SECONDS = 2.0
_ASKED_EVERY = 1.0


class Push:
    """Follows the registry, and tells subscribers. Nothing is told again to who was not there: `wait_for_changes` has a
    cursor for that. `say`: what has ended it, when that is no daemon that is away."""

    def __init__(self, access: Access, say: Callable[[str], None]) -> None:
        self._access = access
        self._say = say
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus)
        self._following = asyncio.Event()

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Serve one subscription. It is acknowledged when changes are followed, so that none after that is missed; with
        no daemon to follow it is all the same, and told of what happens once there is one."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._following.wait()
        except TimeoutError:
            pass  # no daemon, or a busy one
        token = token_of(ctx)
        return await (self._listen(ctx, params) if token is None else self._while_taken(token, ctx, params))

    async def _while_taken(
        self, token: str, ctx: ServerRequestContext[Any, Any], params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """A token that is revoked opens nothing any more, what it has opened included."""
        refused = None
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(self._listen(ctx, params))
            while refused is None and not (await asyncio.wait({serving}, timeout=_ASKED_EVERY))[0]:
                try:
                    await asyncio.to_thread(check_token, self._access, token)
                except Unauthenticated as error:
                    refused = error
                    serving.cancel()
                except RegistryError:
                    continue  # a daemon that is away is waited for
        if refused is not None:
            raise MCPError(types.INVALID_PARAMS, str(refused), {"code": refused.code, "hint": refused.hint})
        return serving.result()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish what changes during the block; a daemon that is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._publish())
            try:
                yield
            finally:
                publishing.cancel()

    async def _publish(self) -> None:
        while True:
            try:
                async with aclosing(self._events()) as events:
                    async for event in events:
                        await self._bus.publish(event)
            except CursorMismatch:
                await self._bus.publish(ResourcesListChanged())  # another history: all may be different
            except RegistryError as error:
                self._say(f"changes are pushed no more: {error}")
                self._following.set()
                return

    async def _events(self) -> AsyncGenerator[ServerEvent, None]:
        async with aclosing(self._access.follower().frames({"from": "now"})) as frames:
            async for frame in frames:
                self._following.set()
                if frame["type"] == "gap":
                    yield ResourcesListChanged()
                for event in frame.get("events", ()):
                    for told in _told(event):
                        yield told


def _told(event: dict[str, Any]) -> list[ServerEvent]:
    if event["op"] == "event":  # data that was sent, no change of a record
        return []
    updated = ResourceUpdated(uri_of(event["kind"], event["namespace"], event["name"]))
    listed = event["op"] == "delete" or event["generation"] == 1
    return [updated, ResourcesListChanged()] if listed else [updated]
