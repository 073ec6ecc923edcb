"""The API on sockets: who listens where. `api/fast.py` answers plain requests, `api/full.py` all others."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from universal_registry.api.dispatch import Api
from universal_registry.api.fast import PlainFront
from universal_registry.api.http import Peer, PeerKind
from universal_registry.api.listening import ServerLimits, bind_tcp, bind_unix, peer_uid, same_file, short_path

if TYPE_CHECKING:
    from aiohttp import web

    from universal_registry.api.stream import StreamFront
    from universal_registry.api.tls import Tls


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server listens: the socket's path, and `HOST:PORT` (None: not on TCP)."""

    socket: str
    tcp: str | None

    def lines(self) -> str:
        """The text of `run/address`."""
        return "".join(f"{each}\n" for each in (self.socket, self.tcp) if each)


_LIMITS = ServerLimits()


class ApiServer:
    """Serves one Api on a Unix socket and, if `listen` is not empty, on TCP (`HOST:PORT`; port 0 takes a free one).

    `short_folder`: where a socket goes, under a hashed name, whose own path is longer than systems allow.
    `short_way`: off only in tests, so that aiohttp answers plain requests too (`api/fast.py`); there are no `streams`
    then. `tls`: what TCP is spoken through; None: in clear.
    """

    def __init__(
        self,
        api: Api,
        *,
        socket_path: Path,
        listen: str,
        short_folder: Path,
        limits: ServerLimits = _LIMITS,
        short_way: bool = True,
        streams: StreamFront | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._api = api
        self._socket_path = short_path(socket_path, short_folder)
        self._listen = listen
        self._limits = limits
        self._short_way = short_way
        self._streams = streams
        self._tls = tls
        self._fronts: list[PlainFront] = []
        self._http: list[web.Server] = []
        self._listeners: list[asyncio.Server] = []
        self._bound: os.stat_result | None = None

    async def start(self) -> Addresses:
        """Bind and serve. Raises Conflict when an address is taken, UsageError when it is none."""
        try:
            await self._start_unix()
            tcp = await self._start_tcp() if self._listen else None
        except BaseException:
            await self.stop(0)
            raise
        return Addresses(socket=str(self._socket_path), tcp=tcp)

    async def stop(self, grace: float) -> None:
        """Accept nobody any more, let requests under way end within `grace` seconds, close, remove the socket."""
        for listener in self._listeners:
            listener.close()
        self._api.close()
        for front in self._fronts:
            front.close_idle()
        for http in self._http:
            http.pre_shutdown()
        streams = () if self._streams is None else (self._streams,)
        await asyncio.gather(
            *(front.shutdown(grace) for front in streams),
            *(front.shutdown(grace) for front in self._fronts),
            *(http.shutdown(grace) for http in self._http),
        )
        self._fronts, self._http, self._listeners = [], [], []
        if self._bound is not None and same_file(self._socket_path, self._bound):
            self._socket_path.unlink(missing_ok=True)
        self._bound = None

    async def _start_unix(self) -> None:
        sock = bind_unix(self._socket_path)
        self._bound = os.stat(self._socket_path)
        await self._serve(sock, None)

    async def _start_tcp(self) -> str:
        sock, shown, hosts = await bind_tcp(self._listen)
        await self._serve(sock, hosts)
        return shown

    async def _serve(self, sock: socket.socket, hosts: frozenset[str] | None) -> None:
        def peer_of(transport: asyncio.BaseTransport | None) -> Peer:
            return _peer(transport, hosts, self._tls)

        @cache
        def full() -> web.Server:
            from universal_registry.api.full import full_front

            self._http.append(full_front(self._api, self._limits, peer_of))
            return self._http[-1]

        def by_aiohttp() -> asyncio.Protocol:
            return full()()

        def other(data: bytes) -> asyncio.Protocol:
            streams = self._streams
            if streams is None or not streams.wants(data):
                return by_aiohttp()
            return streams.accept(peer_of, self._limits.line, self._limits.idle, by_aiohttp)

        made: Callable[[], asyncio.Protocol] = by_aiohttp
        if self._short_way:
            made = PlainFront(self._api, self._limits, peer_of, other)
            self._fronts.append(made)
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        if hosts is None:
            listener = await loop.create_unix_server(made, sock=sock, backlog=1024)
        else:
            secure: dict[str, Any] = {}
            if self._tls is not None:
                secure = {"ssl": self._tls.context, "ssl_handshake_timeout": self._limits.idle}
            listener = await loop.create_server(made, sock=sock, backlog=1024, **secure)
        self._listeners.append(listener)


def _peer(transport: asyncio.BaseTransport | None, hosts: frozenset[str] | None, tls: Tls | None) -> Peer:
    """Who is at the other end; `hosts`: what a TCP listener may be called, None for a Unix socket."""
    if hosts is not None:
        return Peer(kind=PeerKind.TCP, hosts=hosts if tls is None else _also(hosts, tls.names))
    sock = transport.get_extra_info("socket") if transport else None
    return Peer(kind=PeerKind.UNIX, uid=peer_uid(sock) if sock is not None else None)


@cache
def _also(hosts: frozenset[str], names: frozenset[str]) -> frozenset[str]:
    """What the Host header may be, with the names of the certificate: with the port, which may be left out if 443."""
    port = next(port for host in hosts if (port := host.rpartition(":")[2]).isdigit())
    known = {host.removesuffix(f":{port}") for host in hosts} | names
    found = {f"{name}:{port}" for name in known}
    return frozenset(found | known if port == "443" else found)
