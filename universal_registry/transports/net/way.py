"""Connections to checked addresses only.

A name is resolved for each connection, every answer must pass the target's policy, the socket is opened to a checked
address (SNI and Host keep the name), and the address connected to is checked again before a byte is sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

from universal_registry.security.addresses import Policy, Url, check_peer
from universal_registry.transports.net.names import Resolve

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)
_MOST_ADDRESSES = 16


class Unresolved(OSError):
    """A name that has no address, or none that could be found out."""


async def addresses_of(url: Url, policy: Policy, resolve: Resolve) -> tuple[str, ...]:
    """The addresses behind a URL, all of which pass: a mixed answer is how a name is rebound.

    Raises AddressRefused, Unresolved.
    """
    found: Sequence[str] = (url.host,)
    if url.address is None:
        try:
            found = tuple(dict.fromkeys(await resolve(url.host)))
        except OSError as error:
            raise Unresolved(error.strerror or str(error)) from error
    if not found:
        raise Unresolved("it has no address")
    for address in found:
        check_peer(url, address, policy)
    return tuple(found[:_MOST_ADDRESSES])


class Way:
    """Where connections go, and what they must pass. `tls`: None for cleartext. `key`: the same for the same way."""

    __slots__ = ("key", "policy", "tls", "url")

    def __init__(self, url: Url, policy: Policy, tls: ssl.SSLContext | None) -> None:
        self.url = url
        self.policy = policy
        self.tls = tls
        self.key = (url.scheme, url.host, url.port, url.loopback_only, policy)

    async def connect(
        self, addresses: Sequence[str], make: Callable[[], ProtocolT], deadline: float
    ) -> tuple[ProtocolT, str]:
        """A connection to the first of the addresses that takes one: its protocol, and that address.

        `deadline`: by the loop's clock; each address gets its share of the time, so that a black hole does not cost
        the others their chance. Raises AddressRefused, OSError (ssl.SSLError and TimeoutError are some).
        """
        loop = asyncio.get_running_loop()
        for left in range(len(addresses), 0, -1):
            try:
                async with asyncio.timeout((deadline - loop.time()) / left):
                    return await self._connect(addresses[-left], make), addresses[-left]
            except OSError:
                if left == 1:
                    raise
        raise Unresolved("it has no address")

    async def _connect(self, address: str, make: Callable[[], ProtocolT]) -> ProtocolT:
        loop, url = asyncio.get_running_loop(), self.url
        check_peer(url, address, self.policy)  # the last check before connecting, on exactly what is connected to
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, (address, url.port))
            check_peer(url, str(sock.getpeername()[0]), self.policy)
            name = url.host if self.tls is not None else None
            _, protocol = await loop.create_connection(make, sock=sock, ssl=self.tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise
        return protocol
