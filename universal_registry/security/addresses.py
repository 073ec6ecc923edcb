"""Who may be connected to. Pure range rules; resolving and connecting are the business of `transports`.

The library's own `is_global` is no guard: it is true for several ways of writing a loopback or metadata address. Here
is our own table, and forms that carry an IPv4 address inside are opened and judged by what they carry, to any depth.
What the table does not know is refused. Judge resolved addresses, never the text of a host: `2130706433` and `0x7f.1`
are loopback to a resolver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

from universal_registry.kernel.errors import AddressRefused, Invalid

Address = IPv4Address | IPv6Address


class Policy(StrEnum):
    """What a target may stand on. Each allows what the ones before it allow."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"


class _Never(StrEnum):
    NEVER = "never"


Reach = Policy | _Never
_ORDER: dict[Reach, int] = {Policy.PUBLIC: 0, Policy.PRIVATE: 1, Policy.LOOPBACK: 2, _Never.NEVER: 3}
_NEVER = _Never.NEVER


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an address is: its reach, the range that decides, and the embedded address that it really stands for."""

    reach: Reach
    network: str
    meaning: str
    stands_for: Address | None = None


# Most specific first. From the registries of special-purpose addresses, and the addresses at which clouds serve
# credentials to whoever asks from inside.
_V4: tuple[tuple[IPv4Network, Reach, str], ...] = tuple(
    (IPv4Network(network), reach, meaning)
    for network, reach, meaning in (
        ("169.254.169.254/32", _NEVER, "cloud metadata"),
        ("169.254.170.2/32", _NEVER, "cloud metadata"),
        ("100.100.100.200/32", _NEVER, "cloud metadata"),
        ("168.63.129.16/32", _NEVER, "cloud metadata"),
        ("192.0.0.192/32", _NEVER, "cloud metadata"),
        ("255.255.255.255/32", _NEVER, "broadcast"),
        ("0.0.0.0/32", _NEVER, "unspecified"),
        ("0.0.0.0/8", _NEVER, "this network"),
        ("10.0.0.0/8", Policy.PRIVATE, "private network"),
        ("100.64.0.0/10", Policy.PRIVATE, "carrier or overlay network"),
        ("127.0.0.0/8", Policy.LOOPBACK, "this machine"),
        ("169.254.0.0/16", _NEVER, "link-local"),
        ("172.16.0.0/12", Policy.PRIVATE, "private network"),
        ("192.0.0.0/24", _NEVER, "protocol assignments"),
        ("192.0.2.0/24", _NEVER, "documentation"),
        ("192.88.99.0/24", _NEVER, "6to4 relays"),
        ("192.168.0.0/16", Policy.PRIVATE, "private network"),
        ("198.18.0.0/15", _NEVER, "benchmarking"),
        ("198.51.100.0/24", _NEVER, "documentation"),
        ("203.0.113.0/24", _NEVER, "documentation"),
        ("224.0.0.0/4", _NEVER, "multicast"),
        ("240.0.0.0/4", _NEVER, "reserved"),
        ("0.0.0.0/0", Policy.PUBLIC, "public internet"),
    )
)
_V6: tuple[tuple[IPv6Network, Reach, str], ...] = tuple(
    (IPv6Network(network), reach, meaning)
    for network, reach, meaning in (
        ("::/128", _NEVER, "unspecified"),
        ("::1/128", Policy.LOOPBACK, "this machine"),
        ("fd00:ec2::/32", _NEVER, "cloud metadata"),
        ("fd20:ce::254/128", _NEVER, "cloud metadata"),
        ("2001::/23", _NEVER, "protocol assignments"),
        ("2001:db8::/32", _NEVER, "documentation"),
        ("3fff::/20", _NEVER, "documentation"),
        ("fc00::/7", Policy.PRIVATE, "private network"),
        ("fe80::/10", _NEVER, "link-local"),
        ("fec0::/10", _NEVER, "site-local"),
        ("ff00::/8", _NEVER, "multicast"),
        ("2000::/3", Policy.PUBLIC, "public internet"),
        ("::/0", _NEVER, "reserved"),
    )
)
# Ranges that carry IPv4 addresses: where, as right shifts of the 128 bits. `private` ones are never on the internet.
_CARRIERS: tuple[tuple[IPv6Network, str, tuple[int, ...]], ...] = tuple(
    (IPv6Network(network), meaning, shifts)
    for network, meaning, shifts in (
        ("::ffff:0:0/96", "IPv4-mapped", (0,)),
        ("::ffff:0:0:0/96", "IPv4-translated", (0,)),
        ("::/96", "IPv4-compatible", (0,)),
        ("64:ff9b::/96", "NAT64", (0,)),
        ("2002::/16", "6to4", (80,)),
        ("2001::/32", "Teredo", (64,)),  # the relay; the client is in the inverted last bits
    )
)
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")
_LOW = (1 << 32) - 1


def check_address(ip: str | Address, policy: Policy) -> None:
    """Return when a *resolved* address may be connected to under the policy; else raise AddressRefused."""
    address = _parsed(ip)
    verdict = classify(address)
    if _ORDER[verdict.reach] <= _ORDER[policy]:
        return
    meant = f", which stands for {verdict.stands_for}," if verdict.stands_for is not None else ""
    allow = isinstance(verdict.reach, Policy)
    raise AddressRefused(
        f"{address}{meant} is in {verdict.network} ({verdict.meaning})",
        hint=f"to allow it, give --network {verdict.reach} to ureg target add" if allow else "it is never connected to",
        address=str(address),
        range=verdict.network,
        needs=verdict.reach.value if allow else None,
    )


@lru_cache(maxsize=4096)
def classify(address: Address) -> Verdict:
    """The verdict on an address, by the most restrictive reading of it."""
    if isinstance(address, IPv4Address):
        return next(Verdict(reach, str(net), meaning) for net, reach, meaning in _V4 if address in net)
    if int(address) > 1:  # :: and ::1 are not IPv4-compatible addresses
        for carrier, carrier_meaning, shifts in _CARRIERS:
            if address in carrier:
                return _carried(address, carrier, carrier_meaning, shifts)
    if address in _LOCAL_NAT64:
        return _local_nat64(address)
    plain = IPv6Address(int(address))  # without a zone id
    return next(Verdict(reach, str(net), meaning) for net, reach, meaning in _V6 if plain in net)


def is_loopback(address: str | Address) -> bool:
    """Whether an address, in whatever form, is this machine's loopback."""
    return classify(_parsed(address)).reach is Policy.LOOPBACK


def _carried(address: IPv6Address, carrier: IPv6Network, meaning: str, shifts: tuple[int, ...]) -> Verdict:
    inner = [IPv4Address(int(address) >> shift & _LOW) for shift in shifts]
    if carrier == _TEREDO:
        inner.append(IPv4Address(~int(address) & _LOW))
    worst = max(inner, key=lambda one: _ORDER[classify(one).reach])
    verdict = classify(worst)
    return Verdict(verdict.reach, verdict.network, f"{verdict.meaning}, as {meaning}", worst)


def _local_nat64(address: IPv6Address) -> Verdict:
    """A network's own translator: private at least, and judged by the two usual places of the IPv4 address."""
    bits = int(address)
    places = (bits & _LOW, (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF)
    inner = [IPv4Address(place) for place in places if place]
    worst = max(inner, key=lambda one: _ORDER[classify(one).reach], default=None)
    if worst is None or _ORDER[classify(worst).reach] <= _ORDER[Policy.PRIVATE]:
        return Verdict(Policy.PRIVATE, str(_LOCAL_NAT64), "local NAT64", worst)
    verdict = classify(worst)
    return Verdict(verdict.reach, verdict.network, f"{verdict.meaning}, as local NAT64", worst)


def _parsed(ip: object) -> Address:
    if isinstance(ip, IPv4Address | IPv6Address):
        return ip
    if isinstance(ip, str):
        address = _literal(ip)
        if address is None:
            raise AddressRefused(f"{ip[:60]!a} is not an IP address", hint="resolve the name first")
        return address
    raise AddressRefused(f"{type(ip).__name__} is not an IP address")


# --- URLs -----------------------------------------------------------------------------------------------------------

_BEFORE_PATH = re.compile(r"[^/?#]*")
_URL_CHARS = re.compile(r"[!-~]+")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@%\\]+))(?::([0-9]{1,5}))?", re.DOTALL)
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "nats": 4222, "tls": 4222}
_CLEAR = {"http": "https", "ws": "wss", "nats": "tls"}
"""Schemes in clear, and what to use instead."""
_MOST_URL = 2048


@dataclass(frozen=True, slots=True)
class Url:
    """A checked URL in its parts. `host` is lower case ASCII, IPv6 without brackets; `target` is path and query.

    `loopback_only`: cleartext that was let in because the host names loopback. Who connects must then pass every
    address to `check_peer`, which holds it to that.
    """

    scheme: str
    host: str
    port: int
    target: str
    loopback_only: bool

    @property
    def authority(self) -> str:
        """The Host header: without the port when it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority: what may be shown, since paths and queries of webhooks often hold a secret."""
        return f"{self.scheme}://{self.authority}"

    @property
    def address(self) -> Address | None:
        """The IP address, when the host is written as one."""
        return _literal(self.host)

    def __str__(self) -> str:
        return self.origin + self.target


def check_url(url: str, *, insecure_http: bool = False) -> Url:
    """The parts of a URL that may be a target. Raises Invalid for its form, AddressRefused for cleartext.

    http or https, ws or wss, nats or tls; no userinfo, no fragment; http and nats only to loopback unless
    `insecure_http`. Judges no address, but that one which is never connected to is told before the cleartext.
    """
    if len(url) > _MOST_URL:
        raise Invalid(f"the URL is {len(url)} characters long", hint=f"at most {_MOST_URL}")
    scheme, authority, target = _split(url)
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise Invalid("the URL's host and port cannot be read", hint="write https://host:port/path, IPv6 in brackets")
    host = _ipv6(match[1]) if match[1] else _ascii_host(match[2])
    port = int(match[3]) if match[3] else _PORTS[scheme]
    if not 1 <= port <= 65535:
        raise Invalid(f"port {port} is not between 1 and 65535")
    loopback_only = scheme in _CLEAR and not insecure_http
    checked = Url(scheme, host, port, target, loopback_only)
    if loopback_only and not _names_loopback(host):
        raise _cleartext(checked)
    return checked


def transport_for(url: str) -> str:
    """What sends to such URLs: webhook, websocket or nats."""
    if is_nats(url):
        return "nats"
    return "websocket" if url.lower().startswith(("ws://", "wss://")) else "webhook"


def is_nats(url: str | None) -> bool:
    """Whether it is the URL of a NATS server."""
    return (url or "").lower().startswith(("nats://", "tls://"))


def is_clear(url: str | None) -> bool:
    """Whether what is sent there can be read on the way."""
    return (url or "").lower().startswith(tuple(f"{scheme}:" for scheme in _CLEAR))


def take_credential(url: str) -> tuple[str, str | None]:
    """The URL of a NATS server without what stands before the host, and that: `user:password` or a token, else None."""
    scheme, _, rest = url.partition("://")
    before, at, after = rest.rpartition("@")
    if not is_nats(url) or not at:
        return url, None
    return f"{scheme}://{after}", unquote(before) or None


def _cleartext(url: Url) -> AddressRefused:
    """Why http does not do there: the worst of what can be said against it."""
    literal = _literal(url.host)
    meant = literal or _short_form(url.host)
    if meant is not None and classify(meant).reach is _NEVER:
        try:
            check_address(meant, Policy.LOOPBACK)
        except AddressRefused as never:
            return never
    if literal is None and meant is not None and is_loopback(meant):
        return AddressRefused(
            f"{url.host} is a short form of {meant}",
            hint=f"write {meant}, or give --insecure-http to ureg target add",
            needs="insecure-http",
        )
    return AddressRefused(
        f"{url.origin} is cleartext beyond this machine",
        hint=f"use {_CLEAR[url.scheme]}, or give --insecure-http to ureg target add",
        needs="insecure-http",
    )


_SHORT_PART = re.compile(r"0x[0-9a-f]{1,8}|[0-9]{1,11}")


def _short_form(host: str) -> IPv4Address | None:
    """The IPv4 address that resolvers take a host such as `127.1`, `0x7f.1` or `2130706433` for; None for a name."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_SHORT_PART.fullmatch(part) for part in parts):
        return None
    try:
        numbers = [int(part, 8 if part.isdigit() and part[0] == "0" else 0) for part in parts]
    except ValueError:
        return None
    *heads, last = numbers
    if any(head > 255 for head in heads) or last >= 256 ** (5 - len(parts)):
        return None
    return IPv4Address(sum(head << 8 * (3 - place) for place, head in enumerate(heads)) + last)


def check_peer(url: Url, ip: str | Address, policy: Policy) -> None:
    """The check before connecting, and again on the address connected to. Raises AddressRefused."""
    check_address(ip, policy)
    if url.loopback_only and not is_loopback(ip):
        raise AddressRefused(
            f"{url.origin} leads to {ip}: cleartext beyond this machine",
            hint=f"use {_CLEAR[url.scheme]}, or give --insecure-http to ureg target add",
            needs="insecure-http",
        )


def _split(url: str) -> tuple[str, str, str]:
    """Scheme, authority, and path with query; all the rest of a URL is refused."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise Invalid("the URL must begin with https:// or http:// (or wss://, ws://, tls:// or nats://)")
    authority = _BEFORE_PATH.match(rest)[0]  # type: ignore[index] # it may be empty, and always matches
    target = rest[len(authority) :]
    if "@" in authority:
        raise Invalid("the URL holds a user name or password", hint="remove it; use the target's own secret or headers")
    if "#" in target:
        raise Invalid("the URL holds a fragment (#...)", hint="remove it: it is never sent")
    if not authority:
        raise Invalid("the URL has no host")
    if target and not (_URL_CHARS.fullmatch(target) and "\\" not in target):
        raise Invalid("the URL's path holds a blank or a character that must be written as %XX")
    return scheme, authority, target if target.startswith("/") else "/" + target


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise Invalid(f"[{text[:60]}] is not an IPv6 address") from None


def _ascii_host(host: str) -> str:
    """Lower case ASCII, by IDNA when it is not ASCII yet."""
    name = host.lower()
    if not name.isascii():
        import idna  # lazily: its tables are large and such hosts rare

        try:
            name = idna.encode(host, uts46=True, std3_rules=True).decode().lower()
        except (idna.IDNAError, UnicodeError):
            raise Invalid(f"host {host[:80]!a} is not a domain name") from None
    name = name.removesuffix(".")
    if not _HOST.fullmatch(name):
        raise Invalid(f"host {host[:80]!a} is not a domain name or an IPv4 address")
    return name


@lru_cache(maxsize=4096)
def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _names_loopback(host: str) -> bool:
    literal = _literal(host)
    if literal is not None:
        return is_loopback(literal)
    return host == "localhost" or host.endswith(".localhost")
