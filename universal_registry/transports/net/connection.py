"""One kept connection: a request is written, one answer is read, and anything else that comes ends it."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

MOST_INTERIM = 16
READ_LIMIT = 64 << 10
KEPT = 4 << 10
_MOST_HEAD = 64 << 10
_SWITCHING = 101


class NotHttp(Exception):
    """What came is no answer of HTTP, or one beyond all measure."""


class HungUp(Exception):
    """The far side closed the connection before it had answered."""


class BrokeOff(Exception):
    """The far side closed the connection within its answer."""


class Unfit(Exception):
    """What came is HTTP, and no answer to what was asked."""


class Stage(StrEnum):
    """How far an exchange has come."""

    RESOLVING = "resolving"
    CONNECTING = "connecting"
    ANSWERING = "answering"


class Exchange:
    """One request under way, and what is known of its answer.

    `status` is None until the head of the answer has come. `reply`: the first `kept` bytes of its body.
    `answered`: it was read as far as it ever is, which is to its end or to 64 KiB, or to `kept` if that is more.
    """

    __slots__ = ("answered", "headers", "kept", "reply", "stage", "status")

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self.stage = Stage.CONNECTING
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.reply = b""
        self.answered = False

    def header(self, name: bytes) -> str:
        """The value of a header of the answer, empty when it has none; `name` in lower case."""
        return next((value.decode("latin-1") for each, value in self.headers if each.lower() == name), "")


class Connection(asyncio.Protocol):
    """One connection, and the callbacks of its parser. While it is open it is one of `all_open`; `lost`: done when it
    is closed."""

    __slots__ = (
        "_all_open", "_answer", "_complete", "_exchange", "_fault", "_head_left", "_interim", "_keep", "_loop",
        "_parser", "_read", "_transport", "address", "lost", "rests_until",
    )  # fmt: skip

    def __init__(self, all_open: set[Connection]) -> None:
        self._all_open = all_open
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._answer: asyncio.Future[bool]
        self._fault: Exception | None = None
        self._head_left = self._interim = self._read = 0
        self._complete = self._keep = False
        self.address = ""
        self.rests_until = 0.0
        self.lost: asyncio.Future[None] = self._loop.create_future()

    async def ask(self, request: bytes, exchange: Exchange, deadline: float) -> bool:
        """Send it, and wait for the answer; whether the connection can be used again. It is dropped on any error."""
        if self._fault is not None:
            raise self._fault
        self._exchange = exchange
        self._head_left, self._interim, self._read = _MOST_HEAD, 0, 0
        self._complete = self._keep = False
        self._answer = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._late)
        try:
            self._transport.write(request)
            return await self._answer
        except BaseException:
            self.drop()
            raise
        finally:
            timer.cancel()
            self._exchange = None

    def drop(self) -> None:
        """Close it, with whatever is unsent: closing politely would wait for a peer that does not read."""
        self.rests_until = 0.0
        if not self.lost.done():
            self._transport.abort()

    def _late(self) -> None:
        if not self._answer.done():
            self._answer.set_exception(TimeoutError())

    def _end(self, error: Exception | None = None) -> None:
        """The exchange is over."""
        assert self._exchange is not None
        if self._answer.done():
            return
        if error is not None:
            self._answer.set_exception(error)
            return
        self._exchange.answered = True
        # What was not sent to its end leaves a connection that cannot be used again.
        self._answer.set_result(self._keep and not self._transport.get_write_buffer_size())

    # --- of asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's is none of asyncio's classes
        self._all_open.add(self)

    def data_received(self, data: bytes) -> None:
        exchange, parser = self._exchange, self._parser
        if exchange is None or parser is None or self._answer.done():
            self.drop()  # nobody asked for it: it would be read as the answer to what is asked next
            return
        if exchange.status is None:
            self._head_left -= len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._complete, self._keep = True, False
        except HttpParserError as error:
            self._keep = False
            if not self._complete:
                self._end(_meant(error))
                return
        if self._complete:
            self._end()
        elif exchange.status is None and self._head_left < 0:
            self._end(NotHttp("its head is too long"))

    def eof_received(self) -> None:
        self._hung_up(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._hung_up(error)
        self._parser = None  # which holds this object
        self._all_open.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def _hung_up(self, error: Exception | None) -> None:
        self.rests_until = 0.0
        self._keep = False
        exchange = self._exchange
        if exchange is None:
            self._fault = self._fault or (error if isinstance(error, OSError) else HungUp())
        elif exchange.status is None:
            self._end(error if isinstance(error, OSError) else HungUp())
        else:
            self._end(None if error is None and _lasts_to_the_end(exchange) else BrokeOff())

    # --- of the parser ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False
            raise Unfit("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._exchange is not None
        self._exchange.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._exchange is not None
        assert self._parser is not None
        status: int = self._parser.get_status_code()
        if 100 <= status < 200 and status != _SWITCHING:
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise Unfit(f"more than {MOST_INTERIM} interim answers")
            self._exchange.headers.clear()
            self._head_left = _MOST_HEAD
            return
        if sum(len(name) + len(value) for name, value in self._exchange.headers) > _MOST_HEAD:
            raise NotHttp("its head is too long")
        self._exchange.status = status

    def on_body(self, piece: bytes) -> None:
        assert self._exchange is not None
        if self._complete:
            return
        self._read += len(piece)
        exchange = self._exchange
        if len(exchange.reply) < exchange.kept:
            exchange.reply += piece[: exchange.kept - len(exchange.reply)]
        if self._read >= max(READ_LIMIT, exchange.kept):
            self._complete, self._keep = True, False

    def on_message_complete(self) -> None:
        assert self._exchange is not None
        assert self._parser is not None
        if self._exchange.status is not None and not self._complete:  # else it was an interim answer
            self._complete, self._keep = True, self._parser.should_keep_alive()


def _meant(error: HttpParserError) -> Exception:
    """The error that stopped the parser: one of ours, or its own in our words."""
    if isinstance(error, HttpParserCallbackError):
        return error.__context__ if isinstance(error.__context__, Exception) else error
    return NotHttp(str(error))


def _lasts_to_the_end(exchange: Exchange) -> bool:
    """Whether the end of the connection is the end of the answer: nothing else says where that is."""
    codings = exchange.header(b"transfer-encoding").lower()
    if codings:
        return codings.rpartition(",")[2].strip() != "chunked"
    return not any(name.lower() == b"content-length" for name, _ in exchange.headers)
