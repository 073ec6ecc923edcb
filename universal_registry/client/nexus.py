"""Studios from Python: whoever keeps a copy of records pulls, pushes and follows with this (docs/reference/studio.md).

studio = Studio(Client("/home/me/registry/run/ureg.sock"))
studio.bind("alias/gs", "component-7")
answer = studio.sync({"component": "component-7", "spec": {...}, "base": 12})
...                                   # store answer["changes"], then
studio.sync(cursor=answer["cursor"])  # acknowledges them, and asks for more
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from universal_registry.client.http import Caller, quote
from universal_registry.kernel.errors import CursorMismatch, RegistryError
from universal_registry.kernel.world import SystemWorld, World

if TYPE_CHECKING:
    from universal_registry.client.stream import StreamClient

PATH = "/v1/-/nexus"
STUDIO = "nexus"
_WAIT = 20
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
Change = dict[str, Any]


class Studio:
    """One studio, by name, through whoever can pass its requests on. All raise the RegistryError that the registry
    answers with; Unreachable and TimedOut when it does not answer."""

    def __init__(self, caller: Caller, name: str = STUDIO) -> None:
        self.name = name
        self._caller = caller

    def bind(
        self,
        entry: str,
        *components: str,
        direction: str = "bidirectional",
        namespace: str | None = None,
        protocol: str = "",
    ) -> dict[str, Any]:
        """Say which component (or, for multicast, which) the record `[kind/]name` is."""
        body: dict[str, Any] = {"entry": entry, "components": list(components), "direction": direction}
        body |= {"studio": self.name, "namespace": namespace, "protocol": protocol}
        return self._post(f"{PATH}/bindings", body)

    def bindings(self) -> list[dict[str, Any]]:
        """All that it is told of."""
        found: list[dict[str, Any]] = self._get(f"{PATH}/bindings", studio=self.name)["items"]
        return found

    def unbind(self, binding: str) -> None:
        """Forget a binding, by its name."""
        self._caller.request("DELETE", f"{PATH}/bindings/{quote(binding)}")

    def enable_streaming(
        self, entry: str, component: str, protocol: str = "websocket", namespace: str | None = None
    ) -> dict[str, Any]:
        """Bind it, if it is not, and have it followed over a stream of the component's name, which is made."""
        known = [each for each in self.bindings() if component in each["components"]]
        direction = known[0]["direction"] if known else "bidirectional"
        components = known[0]["components"] if known else [component]
        bound = self.bind(entry, *components, direction=direction, namespace=namespace, protocol=protocol)
        body = {"classification": "WebSocketEndpoint", "spec": {"protocol": protocol}}
        made = self._caller.request("PATCH", f"/v1/default/endpoints/-?name={quote(component)}", json=body).json()
        return {**bound, "stream": component, "stream_effect": made["effect"]}

    def sync(self, *push: Mapping[str, Any], cursor: str = "", full: bool = False, wait: int = 0) -> dict[str, Any]:
        """One exchange. `cursor`: of the answer before, whose changes are stored now. `full`: all that is bound."""
        body = {"push": list(push), "cursor": cursor, "full": full, "wait": wait}
        return self._post(f"{PATH}/{quote(self.name)}/sync", body)

    def exchanges(self, *push: Mapping[str, Any], cursor: str = "", full: bool = False) -> Iterator[dict[str, Any]]:
        """Exchange after exchange until there is no more. Asking for the next acknowledges the one before; the last is
        acknowledged by whoever has stored it."""
        answer = self.sync(*push, cursor=cursor, full=full)
        yield answer
        while answer["more"]:
            answer = self.sync(cursor=answer["cursor"])
            yield answer

    def history(self, entry: str | None = None, limit: int = 100, namespace: str | None = None) -> list[dict[str, Any]]:
        """What was exchanged with it, newest first; of one record, if it is named."""
        query = {"entry": entry, "studio": self.name, "limit": limit, "namespace": namespace}
        found: list[dict[str, Any]] = self._get(f"{PATH}/history", **query)["items"]
        return found

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._caller.request("GET", path, query=query).json()
        return found

    def _post(self, path: str, body: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._caller.request("POST", path, json=body).json()
        return found


async def follow(
    client: StreamClient, name: str = STUDIO, *, world: World | None = None
) -> AsyncGenerator[Change, None]:
    """Each change for the studio, over one WebSocket, as it happens; what was not acknowledged before comes first. To
    ask for the next one acknowledges those before. `{"op": "restart"}`: all that is bound is told anew, and what is not
    told then is gone. Outlives its connection. Raises the RegistryError of what another try would not change."""
    world, wait, cursor, full = world or SystemWorld(), _FIRST_WAIT, "", False
    while True:
        try:
            message = {"type": "sync", "studio": name, "cursor": cursor, "full": full, "wait": _WAIT}
            (answer,) = await client.push(message)
        except CursorMismatch:
            if full:
                raise
            cursor, full = "", True
            yield {"op": "restart"}
        except RegistryError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(world.chance() * wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        else:
            wait, full = _FIRST_WAIT, False
            for change in answer["body"]["changes"]:
                yield change
            cursor = answer["body"]["cursor"]
