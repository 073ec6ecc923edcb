"""Webhooks: one POST, one answer, one deadline for all of it. Reports how it ended and decides nothing."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import groupby
from operator import itemgetter

import aiohttp
from yarl import URL

from universal_registry.kernel.errors import AddressRefused, Invalid, RegistryError
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.propagation.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Url, check_url
from universal_registry.transports.net import KEEP_ALIVE_SECONDS, Attempt, CheckedConnector, Resolve, Stage, SystemNames

READ_LIMIT = 64 << 10
KEPT = 4 << 10
LONGEST_WAIT = timedelta(hours=24)
MOST_KEPT_ORIGINS = 256
_SHOWN = 300
_ECHO = 12
_ECHO_SEARCHED = 64 << 10
_HEAD_LINE = 8190
_HEADERS = 100
_REJECTED = (400, 413, 422)
_NEVER_SHOWN = ("webhook-signature", "authorization", "cookie", "proxy-authorization", "x-api-key")


class WebhookTransport:
    """Sends to http and https URLs, to addresses that the envelope's policy allows.

    `resolve`: the resolver (the system's). `tls`: the trust for https (the system's authorities).
    """

    name = "webhook"

    def __init__(
        self,
        world: World,
        settings: Settings | None = None,  # noqa: ARG002 - nothing of it is for transports: limits are the engine's
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._world = world
        self._resolve = resolve
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._kept: OrderedDict[str, float] = OrderedDict()

    async def send(self, envelope: Envelope) -> Outcome:
        """One attempt. Whatever happens within `envelope.timeout` seconds becomes the outcome; raises nothing else."""
        began = self._world.monotonic()
        exchange = _Exchange(envelope)
        try:
            async with asyncio.timeout(envelope.timeout):
                await self._exchange(exchange)
        except TimeoutError:
            exchange.problem = exchange.late()
        except Exception as error:  # noqa: BLE001 - the port's contract; the reason names what happened
            exchange.problem = exchange.trouble(error)
        finally:
            if exchange.attempt is not None:
                exchange.attempt.abort()
        milliseconds = round((self._world.monotonic() - began) * 1000, 3)
        return exchange.outcome(milliseconds, self._world.now())

    async def close(self) -> None:
        """Close what is kept open. It may be used again."""
        session, self._session = self._session, None
        self._kept.clear()
        if session is not None:
            await session.close()

    async def _exchange(self, exchange: _Exchange) -> None:
        attempt = exchange.begin()
        envelope, url = exchange.envelope, attempt.url
        headers = [*envelope.headers, ("accept-encoding", "identity")]
        attempt.keep = self._keeps(url.origin)
        if not attempt.keep:
            headers.append(("connection", "close"))
        with attempt.current():
            async with self._opened().post(
                URL(str(url), encoded=True), data=envelope.body, headers=headers, allow_redirects=False
            ) as response:
                exchange.status, exchange.headers = response.status, response.headers
                async for piece in response.content.iter_any():
                    exchange.reply += piece
                    if len(exchange.reply) >= READ_LIMIT:
                        break
                exchange.answered = True

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=CheckedConnector(self._resolve or SystemNames(), self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                read_bufsize=READ_LIMIT,
                max_line_size=_HEAD_LINE,
                max_field_size=_HEAD_LINE,
                max_headers=_HEADERS,
            )
        return self._session

    def _keeps(self, origin: str) -> bool:
        """Whether a connection there is to be kept: only so many origins at once, for the sake of file handles."""
        now = self._world.monotonic()
        while self._kept and next(iter(self._kept.values())) <= now:
            self._kept.popitem(last=False)
        if origin not in self._kept and len(self._kept) >= MOST_KEPT_ORIGINS:
            return False
        self._kept.pop(origin, None)
        self._kept[origin] = now + KEEP_ALIVE_SECONDS
        return True


# --- one exchange -----------------------------------------------------------------------------------------------------


class _Exchange:
    """What is known of an attempt while it runs, and what is made of that in the end.

    `answered`: the reply was read as far as it ever is. `problem`: why it did not come so far.
    """

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.attempt: Attempt | None = None
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.reply = bytearray()
        self.answered = False
        self.problem = ""

    def begin(self) -> Attempt:
        """Check the URL, and the address where it names one. Raises Invalid, AddressRefused."""
        url = _checked(self.envelope.url, insecure_http=self.envelope.insecure_http)
        self.attempt = Attempt(url, self.envelope.network)
        if url.address is not None:
            self.attempt.check(url.host)
        return self.attempt

    def late(self) -> str:
        """Why the deadline passed."""
        assert self.attempt is not None
        host, seconds = self.attempt.url.authority, f"{self.envelope.timeout:g} s"
        if self.status is not None:
            return f"the answer of {host} was not complete within {seconds}"
        match self.attempt.stage:
            case Stage.RESOLVING:
                return f"the name {self.attempt.url.host} was not resolved within {seconds}"
            case Stage.CONNECTING:
                return f"no connection to {host} within {seconds}"
            case Stage.ANSWERING:
                return f"no answer from {host} within {seconds}"

    def trouble(self, error: Exception) -> str:
        """Why the exchange broke off."""
        if self.attempt is None:  # the URL itself is at fault
            return (
                _plain(str(error)) if isinstance(error, RegistryError) else f"a fault of ours: {type(error).__name__}"
            )
        return _plain(trouble(self.attempt.url, error, began=self.status is not None))

    def outcome(self, milliseconds: float, now: datetime) -> Outcome:
        """What the engine is told."""
        status = self.status
        if status is None or (200 <= status < 300 and not self.answered):
            return Failed(reason=self.problem, status=status, milliseconds=milliseconds)
        if 200 <= status < 300:
            return Accepted(status=status, milliseconds=milliseconds)
        if 300 <= status < 400:
            return Failed(reason=_redirect(status, self.headers), status=status, milliseconds=milliseconds)
        reason = self._answer()
        if status in _REJECTED:
            return Rejected(reason=reason, status=status, milliseconds=milliseconds)
        wait = retry_after(self.headers.get("retry-after", ""), now)
        return Failed(reason=reason, status=status, milliseconds=milliseconds, retry_after=wait)

    def _answer(self) -> str:
        """The status in words, and the beginning of what came with it where that is text for people."""
        assert self.status is not None
        name = _phrase(self.status)
        kind = self.headers.get("content-type", "").lower()
        if "html" in kind or self.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            return name
        text = " ".join(bytes(self.reply[:KEPT]).decode("utf-8", "replace").split())
        text = without_echo(text[:_SHOWN], self.envelope)
        return _plain(f"{name}: {text}") if text else name


def _checked(url: str, *, insecure_http: bool) -> Url:
    """The URL's parts. An IPv4 address in one of its older forms (2130706433, 0x7f.1) in the form that is checked."""
    parts = check_url(url, insecure_http=insecure_http)
    if parts.address is not None:
        return parts
    try:
        return replace(parts, host=socket.inet_ntoa(socket.inet_aton(parts.host)))
    except OSError:
        return parts


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"status {status}"


def _redirect(status: int, headers: Mapping[str, str]) -> str:
    """The status and where to; only the origin of that, since paths and queries of webhooks often hold a secret."""
    location = headers.get("location", "")
    if not location:
        return f"{_phrase(status)}, never followed"
    try:
        where = check_url(location, insecure_http=True).origin
    except (Invalid, AddressRefused):
        where = "another place" if "//" in location or ":" in location else "another path"
    return f"{status}: redirect to {where} refused, never followed"


# --- reasons in plain words -------------------------------------------------------------------------------------------

_CERTIFICATE = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself",
    19: "is signed by an authority that is not known here",
    20: "is signed by an authority that is not known here",
    62: "is for another name",
    64: "is for another address",
}
_OS = {
    errno.ECONNREFUSED: "connection refused by {host}",
    errno.EHOSTUNREACH: "no way to {host}",
    errno.ENETUNREACH: "no way to the network of {host}",
    errno.ETIMEDOUT: "no connection to {host}: the system gave up",
    errno.EMFILE: "this process has no file handle left to connect with",
    errno.ENFILE: "this machine has no file handle left to connect with",
}


def trouble(url: Url, error: Exception, *, began: bool) -> str:
    """One plain sentence for what kept an exchange from ending. `began`: the head of the answer had come."""
    host = url.authority
    cause = error.__cause__ or error
    match error:
        case AddressRefused() if url.address is None:
            return f"{url.host}: {error}"
        case RegistryError():
            return str(error)
        case aiohttp.ClientConnectorDNSError():
            return f"the name {url.host} cannot be resolved: {_os_reason(cause)}"
        case aiohttp.ClientPayloadError():
            return f"the answer of {host} broke off"
        case aiohttp.ClientResponseError():
            return f"the answer of {host} is not HTTP: {_first_line(error.message)}"
        case aiohttp.ServerDisconnectedError():
            return f"{host} closed the connection without an answer"
    return _broken(host, error, cause, began=began)


def _broken(host: str, error: Exception, cause: BaseException, *, began: bool) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        meaning = _CERTIFICATE.get(cause.verify_code, f"is not good: {cause.verify_message}")
        return f"the certificate of {host} {meaning}"
    if isinstance(cause, ssl.SSLError):
        if cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            return f"{host} does not speak TLS"
        return f"no TLS with {host}: {(cause.reason or 'it was broken off').replace('_', ' ').lower()}"
    if began and isinstance(error, OSError | aiohttp.ClientConnectionError):
        return f"the answer of {host} broke off"
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return f"connection reset by {host}"
    if isinstance(cause, OSError):
        known = _OS.get(cause.errno or 0)
        return known.format(host=host) if known else f"no connection to {host}: {_os_reason(cause)}"
    if isinstance(error, aiohttp.ClientConnectionError):  # the only ones whose text holds no URL
        return f"no answer from {host}: {error}"
    return f"a fault of ours in sending to {host}: {type(error).__name__}"


def _os_reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text)[:1].lower() + str(text)[1:]


def _first_line(message: str) -> str:
    """The parser's complaint without the bytes that it quotes."""
    first = re.split(r"""[\n"'(]|: ?b['"]""", message.strip())[0]
    return first.strip(" :").lower()[:80] or "unreadable"


def _plain(text: str) -> str:
    """One line that moves no cursor: what cannot be printed is written as `\\uXXXX`."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def without_echo(text: str, envelope: Envelope) -> str:
    """The far side's words, without what they repeat of our request: its body, its signature, the URL's path.

    Nothing of them where the body is too long to be searched while others wait.
    """
    if len(envelope.body) > _ECHO_SEARCHED:
        return ""
    bare = text.replace("\\", "")  # in a JSON string within JSON, quotes are escaped
    ours = [envelope.body.decode("utf-8", "replace").replace("\\", "")]
    ours += [value for name, value in envelope.headers if name.lower() in _NEVER_SHOWN]
    ours.append(envelope.url.partition("://")[2].partition("/")[2])
    hidden = [False] * len(bare)
    for start in range(len(bare) - _ECHO + 1):
        if any(bare[start : start + _ECHO] in mine for mine in ours):
            hidden[start : start + _ECHO] = [True] * _ECHO
    return "".join(
        "..." if hide else "".join(char for char, _ in run)
        for hide, run in groupby(zip(bare, hidden, strict=True), key=itemgetter(1))
    )


# --- Retry-After ------------------------------------------------------------------------------------------------------

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        rf"[a-z]{{3}}, (?P<day>\d\d) (?P<month>[a-z]{{3}}) (?P<year>\d{{4}}) {_CLOCK} GMT",
        rf"[a-z]{{6,9}}, (?P<day>\d\d)-(?P<month>[a-z]{{3}})-(?P<year>\d\d) {_CLOCK} GMT",
        rf"[a-z]{{3}} (?P<month>[a-z]{{3}}) (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})",
    )
)


def retry_after(value: str, now: datetime) -> timedelta | None:
    """The wait that a Retry-After header asks for: seconds, or a date in any of HTTP's three forms, from `now` on.

    Never negative, at most 24 hours; None for what is neither.
    """
    value = value.strip()[:64]
    if re.fullmatch(r"[0-9]+", value):
        return min(timedelta(seconds=min(int(value), 10**6)), LONGEST_WAIT)
    moment = _http_date(value, now)
    if moment is None:
        return None
    return min(max(moment - now, timedelta(0)), LONGEST_WAIT)


def _http_date(value: str, now: datetime) -> datetime | None:
    match = next((found for form in _DATES if (found := form.fullmatch(value))), None)
    if match is None or match["month"].lower() not in _MONTHS:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:  # the year with these digits that is at most 50 years ahead
        year += now.year // 100 * 100
        year += 100 if year < now.year - 49 else -100 if year > now.year + 50 else 0
    month, day = _MONTHS.index(match["month"].lower()) + 1, int(match["day"])
    clock = int(match["hour"]), int(match["minute"]), min(int(match["second"]), 59)  # 60 is a leap second
    try:
        return datetime(year, month, day, *clock, tzinfo=UTC)
    except ValueError:
        return None
