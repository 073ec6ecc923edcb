"""Webhooks: one POST, one answer, one deadline for all of it. Reports how it ended and decides nothing."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import groupby
from operator import itemgetter

from universal_registry.kernel.errors import AddressRefused, Invalid, RegistryError
from universal_registry.kernel.world import World
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy, Url, check_peer, check_url
from universal_registry.transports.net import (
    Exchange,
    Poster,
    Resolve,
    Stage,
    SystemNames,
    Way,
    plain,
    trouble,
)

LONGEST_WAIT = timedelta(hours=24)
_SHOWN = 300
_ECHO = 12
_ECHO_SEARCHED = 64 << 10
_MOST_PLACES = 1 << 14
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
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._world = world
        self._resolve = resolve
        self._tls = tls
        self._poster: Poster | None = None
        self._places: dict[tuple[str, Policy, bool], _Place] = {}

    async def send(self, envelope: Envelope) -> Outcome:
        """One attempt. Whatever happens within `envelope.timeout` seconds becomes the outcome; raises nothing else."""
        began = self._world.monotonic()
        attempt = _Attempt(envelope)
        try:
            place = attempt.place = self._place(envelope)
            if self._poster is None:
                self._poster = Poster(self._resolve or SystemNames())
            head = place.head + _lines(envelope)
            await self._poster.post(place.way, head, envelope.body, attempt.exchange, envelope.timeout)
        except TimeoutError:
            attempt.problem = attempt.late()
        except Exception as error:  # noqa: BLE001 - the port's contract; the reason names what happened
            attempt.problem = attempt.trouble(error)
        return attempt.outcome(round((self._world.monotonic() - began) * 1000, 3), self._world)

    async def close(self) -> None:
        """Close what is kept open. It may be used again."""
        poster, self._poster = self._poster, None
        if poster is not None:
            await poster.close()

    def _place(self, envelope: Envelope) -> _Place:
        """Where the URL leads, checked as far as it can be without asking anybody. Raises Invalid, AddressRefused."""
        asked = (envelope.url, envelope.network, envelope.insecure_http)
        place = self._places.get(asked)
        if place is None:
            url = _checked(envelope.url, insecure_http=envelope.insecure_http)
            if url.address is not None:
                check_peer(url, url.host, envelope.network)
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            tls = self._trust() if url.scheme == "https" else None
            place = self._places[asked] = _Place(Way(url, envelope.network, tls))
        return place

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class _Place:
    """A URL under a policy, and how requests to it begin."""

    __slots__ = ("head", "way")

    def __init__(self, way: Way) -> None:
        self.way = way
        self.head = (
            f"POST {way.url.target} HTTP/1.1\r\nhost: {way.url.authority}\r\naccept: */*\r\n"
            "accept-encoding: identity\r\n"
        )


def _lines(envelope: Envelope) -> str:
    """The envelope's headers, and the length of its body. Raises Invalid for what would be read as more than that."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in envelope.headers])
    if lines.count("\n") != len(envelope.headers) or lines.count("\r") != len(envelope.headers) or "\0" in lines:
        raise Invalid("a header to be sent holds a line break")
    return f"{lines}content-length: {len(envelope.body)}\r\n"


# --- one exchange -----------------------------------------------------------------------------------------------------


class _Attempt:
    """What is known of an attempt, and what is made of that in the end. `problem`: why it was not answered whole;
    `setup`: because of how the target is set up."""

    __slots__ = ("envelope", "exchange", "place", "problem", "setup")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.exchange = Exchange()
        self.place: _Place | None = None
        self.problem = ""
        self.setup = False

    def late(self) -> str:
        """Why the deadline passed."""
        assert self.place is not None
        url, seconds = self.place.way.url, f"{self.envelope.timeout:g} s"
        if self.exchange.status is not None:
            return f"the answer of {url.authority} was not complete within {seconds}"
        match self.exchange.stage:
            case Stage.RESOLVING:
                return f"the name {url.host} was not resolved within {seconds}"
            case Stage.CONNECTING:
                return f"no connection to {url.authority} within {seconds}"
            case Stage.ANSWERING:
                return f"no answer from {url.authority} within {seconds}"

    def trouble(self, error: Exception) -> str:
        """Why the exchange broke off."""
        self.setup = isinstance(error, AddressRefused)
        if self.place is None:  # the URL itself is at fault
            return plain(str(error)) if isinstance(error, RegistryError) else f"a fault of ours: {type(error).__name__}"
        return plain(trouble(self.place.way.url, error, began=self.exchange.status is not None))

    def outcome(self, milliseconds: float, world: World) -> Outcome:
        """What the engine is told."""
        status, exchange = self.exchange.status, self.exchange
        if status is None or (200 <= status < 300 and not exchange.answered):
            return Failed(reason=self.problem, status=status, milliseconds=milliseconds, setup=self.setup)
        if 200 <= status < 300:
            return Accepted(
                status=status, milliseconds=milliseconds, answer=bytes(exchange.reply).decode(errors="replace")
            )
        if 300 <= status < 400:
            return Failed(
                reason=_redirect(status, exchange.header(b"location")), status=status, milliseconds=milliseconds
            )
        reason = self._answer(status)
        if status in _REJECTED:
            return Rejected(reason=reason, status=status, milliseconds=milliseconds)
        wait = retry_after(exchange.header(b"retry-after"), world.now())
        return Failed(reason=reason, status=status, milliseconds=milliseconds, retry_after=wait)

    def _answer(self, status: int) -> str:
        """The status in words, and the beginning of what came with it where that is text for people."""
        name = _phrase(status)
        kind, coding = self.exchange.header(b"content-type").lower(), self.exchange.header(b"content-encoding").lower()
        if "html" in kind or coding not in ("identity", ""):
            return name
        text = " ".join(self.exchange.reply.decode("utf-8", "replace").split())
        text = without_echo(text[:_SHOWN], self.envelope)
        return plain(f"{name}: {text}") if text else name


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


def _redirect(status: int, location: str) -> str:
    """The status and where to; only the origin of that, since paths and queries of webhooks often hold a secret."""
    if not location:
        return f"{_phrase(status)}, never followed"
    try:
        where = check_url(location, insecure_http=True).origin
    except (Invalid, AddressRefused):
        where = "another place" if "//" in location or ":" in location else "another path"
    return f"{status}: redirect to {where} refused, never followed"


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
