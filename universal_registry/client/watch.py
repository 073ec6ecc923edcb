"""Watches from Python, asynchronous: `async for change in client.watch("kind=alias"): ...`

A watch outlives its connection: when that breaks, or the daemon is restarted, it is made again, at any address of the
registry, and goes on behind the last frame that came whole. Nothing is left out, nothing comes twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from universal_registry.client.errors import error_from
from universal_registry.client.http import Client, encode_query
from universal_registry.client.wire import TLS, TRUST_HINT, split_address, trusted
from universal_registry.kernel.errors import CursorGone, CursorMismatch, RegistryError, Unreachable, Untrusted
from universal_registry.kernel.world import SystemWorld, World

PATH = "/v1/-/watch"
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
_HEARTBEAT = 5
_SILENCE = 4.0 * _HEARTBEAT
"""A daemon says something every few seconds: one that has not for so long is gone."""
_CONNECT_SECONDS = 5.0
_HEAD = 1 << 16
Frame = dict[str, Any]


class Change(NamedTuple):
    """What a watch tells. `op`: put, delete, left (the record is no longer selected) or event; of the state at the
    beginning, `record`; and `synced` when everything up to there has been told, `gap` when something cannot be told,
    `restart` when the state at the beginning is told anew.

    `cursor`: having dealt with the change, go on from there (several of one revision have one cursor: the last bears
    it, those before it the one before the revision). `data`: all that was said.
    """

    op: str
    kind: str
    namespace: str
    name: str
    record: dict[str, Any] | None
    previous: dict[str, Any] | None
    revision: int
    cursor: str
    data: dict[str, Any]


class WatchClient:
    """Watches of one registry. `addresses`: where its daemons are (HOST:PORT, `https://HOST:PORT` or the path of a
    socket), asked anew for every connection; tried in turn. `ca_file`: see `client.wire.connect`."""

    def __init__(
        self,
        addresses: Callable[[], Sequence[str]],
        *,
        token: str | None = None,
        ca_file: str | None = None,
        world: World | None = None,
    ) -> None:
        self._addresses = addresses
        self._token = token
        self._ca_file = ca_file
        self._world = world or SystemWorld()
        self._turn = 0
        self.more = False
        """Whether another frame came with the last one: whoever does something for each may wait for that one."""

    async def watch(
        self, *select: str, start: str = "now", consumer: str = "", policy: str = "wait"
    ) -> AsyncGenerator[Change, None]:
        """Changes of what the selectors select. `start`: now, beginning, list or a cursor. `consumer`: a named one,
        instead of both. Close it (`contextlib.aclosing`) when you leave it early.

        Raises the RegistryError that the registry answers with: CursorMismatch (`data["cursor"]`) when the cursor is
        of another history, CursorGone (one of these) when it is from before the log that is kept, Unauthenticated,
        Invalid. A registry that does not answer is waited for.
        """
        query = {"select": list(select), "policy": policy}
        query |= {"consumer": consumer} if consumer else {"from": start}
        before = "" if start in ("now", "beginning", "list") else start
        async with aclosing(self.frames(query)) as frames:
            async for frame in frames:
                for change in _changes(frame, before):
                    yield change
                before = frame.get("cursor", before)

    async def frames(self, query: Mapping[str, Any]) -> AsyncGenerator[Frame, None]:
        """The frames of `GET /v1/-/watch` with that query, over as many connections as it takes."""
        asked, wait, listing = dict(query), FIRST_WAIT, False
        while True:
            try:
                async with aclosing(self._connection({**asked, "heartbeat": _HEARTBEAT})) as connection:
                    async for frame in connection:
                        wait = FIRST_WAIT
                        listing = (listing or frame["type"] == "records") and frame["type"] != "synced"
                        if frame["type"] == "end":
                            _check_end(frame)
                        else:
                            yield frame
                        asked["from"] = frame.get("cursor") or asked.get("from")
            except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
                pass  # it broke: the next one goes on
            except RegistryError as error:
                if not error.retryable:
                    raise
            if listing:
                listing = False
                yield {"type": "restart"}
            await asyncio.sleep(self._world.chance() * wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _connection(self, query: Mapping[str, Any]) -> AsyncGenerator[Frame, None]:
        """The frames of one answer, until it ends or breaks."""
        addresses = self._addresses()
        if not addresses:
            raise Unreachable("no daemon of this registry is known", hint="`ureg up` starts one")
        address = addresses[self._turn % len(addresses)]
        self._turn += 1  # unless it answers, the next one's turn is next
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await _connect(address, self._ca_file)
        try:
            accept = {"accept": "application/x-ndjson"}
            head = Client(address, self._token).head_bytes("GET", f"{PATH}?{encode_query(query)}", accept, 0)
            writer.write(head)
            status, headers = await _head(reader)
            if status != 200:
                body = b"".join([piece async for piece in _body(reader, headers)])
                raise error_from(status, headers.get("content-type", ""), body)
            self._turn -= 1
            rest = b""
            async for piece in _body(reader, headers):
                *lines, rest = (rest + piece).split(b"\n")
                for number, line in enumerate(lines, 1):
                    self.more = number < len(lines)
                    yield json.loads(line)
        finally:
            writer.close()


def _changes(frame: Frame, before: str) -> list[Change]:
    match frame["type"]:
        case "changes":
            events = frame["events"]
            cursors = [before] * (len(events) - 1) + [frame["cursor"]]
            return [_change(each["op"], each, cursor) for each, cursor in zip(events, cursors, strict=True)]
        case "records":
            return [
                _change("record", {**each, "record": each, "revision": each["meta"]["revision"]}, before)
                for each in frame["records"]
            ]
        case "synced" | "gap" | "restart" as op:
            return [_change(op, frame, frame.get("cursor", before))]
        case _:
            return []


def _change(op: str, data: dict[str, Any], cursor: str) -> Change:
    return Change(
        op=op,
        kind=data.get("kind", ""),
        namespace=data.get("namespace", ""),
        name=data.get("name", ""),
        record=data.get("record"),
        previous=data.get("previous"),
        revision=data.get("revision", 0),
        cursor=cursor,
        data=data,
    )


def _check_end(frame: Frame) -> None:
    """Raises CursorMismatch when the history that was read is no more, CursorGone when the rest of it is not kept any
    more. A list that broke off only begins again."""
    if frame.get("resync") and "cursor" in frame:
        error = CursorGone if frame.get("code") == CursorGone.code else CursorMismatch
        raise error(frame["why"], hint="read everything again (start: list)", cursor=frame["cursor"])


async def _connect(address: str, ca_file: str | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("/"):
        return await asyncio.open_unix_connection(address, limit=_HEAD)
    host, port = split_address(address.removeprefix(TLS))
    if not address.startswith(TLS):
        return await asyncio.open_connection(host, port, limit=_HEAD)
    import ssl

    trust = trusted(ca_file)
    try:
        return await asyncio.open_connection(host, port, limit=_HEAD, ssl=trust, server_hostname=host)
    except ssl.SSLCertVerificationError as error:  # another try would end the same
        raise Untrusted(f"the certificate of {address} is not good: {error.verify_message}", hint=TRUST_HINT) from None


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    async with asyncio.timeout(_SILENCE):
        block = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = block.rstrip("\r\n").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise ValueError("no HTTP status line")
    pairs = (line.partition(":") for line in lines)
    return int(parts[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while True:
        async with asyncio.timeout(_SILENCE):
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            piece = await reader.readexactly(size)
            await reader.readexactly(2)
        if not size:
            return
        yield piece
