"""A small receiver of webhooks, for people and for demonstrations: checks, recognises repeats, counts and tells.

What it does is what any good receiver does, in this order: check the signature on the exact bytes, answer a repeat as
if it were new, handle the event, and only then say that it has arrived.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from universal_registry.client.listen_stream import answer_stream, is_stream
from universal_registry.client.receiver import Message, challenge_in, read_message
from universal_registry.client.wire import split_address
from universal_registry.kernel.errors import Conflict, Malformed, TooLarge, UsageError, VerifyError
from universal_registry.kernel.world import World
from universal_registry.security.ed25519 import PUBLIC_PREFIX, parse_public_key
from universal_registry.security.signing import ID_HEADER, ReplayGuard, Verified, parse_secret, verify
from universal_registry.security.wire import parse_wire_key

if TYPE_CHECKING:
    from aiohttp import web

BODY_LIMIT = 1 << 20
BODY_SECONDS = 30.0
IDLE_SECONDS = 75.0
# A sender goes on for about 75 hours; a repeat is recognised for longer than that.
REMEMBERED = timedelta(days=7)
MOST_IDS = 100_000
MOST_SUBJECTS = 1_000_000
_BACKLOG = 1024


class State(StrEnum):
    """What became of one POST. `failed`: turned away by the behaviour that was asked for, or by `on_event`."""

    RECEIVED = "received"
    REPEATED = "repeated"
    REFUSED = "refused"
    FAILED = "failed"


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One POST. `type`, `subject`, `sequence`: of the CloudEvent, empty where there is none.

    `verified`: None when there is no secret to check with. `late`: its sequence is below one that has already come for
    the same subject, so a receiver would not apply it. `reason`: why it was refused or failed. `data`: the event's.
    """

    state: State
    id: str = ""
    type: str = ""
    subject: str = ""
    sequence: str = ""
    verified: bool | None = None
    late: bool = False
    reason: str = ""
    data: Any = None


Behaviour = Callable[[str, int], int | None]
"""(webhook-id, which attempt at it, from 1) -> the status to turn it away with, or None to take it."""
Handle = Callable[[Heard], Awaitable[str]]
"""What is done with an event that was received; why it could not be, or nothing."""


def refusing(status: int = 503) -> Behaviour:
    """Turns everything away."""
    return lambda _msg_id, _attempt: status


def flaky(share: float, status: int = 500) -> Behaviour:
    """Turns that share (0 to 1) of the attempts away; the same ones each time it is run."""

    def behave(msg_id: str, attempt: int) -> int | None:
        digest = hashlib.sha256(f"{attempt}.{msg_id}".encode()).digest()
        return status if int.from_bytes(digest[:8], "big") < share * 2**64 else None

    return behave


class Receiver:
    """Takes events on one address. `secrets` (`whsec_...`, `whpk_...`): refuse what is signed with none of them.

    `seal_keys` (`sealkey_...`): open what is sealed; what does not open is refused. `on_event` is called once for each
    POST, whatever became of it; if it raises, the sender is answered 500 and will repeat, and `wait` raises the same.
    `handle` is called before that, once for each event that is new and no challenge; what it cannot do has failed: it
    is answered 500 and may come again. A repeat that comes meanwhile is told what becomes of the first.
    Raises Invalid for a key that is none, without showing it.
    """

    def __init__(
        self,
        *,
        world: World,
        secrets: Sequence[str] = (),
        seal_keys: Sequence[str] = (),
        on_event: Callable[[Heard], None] | None = None,
        behaviour: Behaviour | None = None,
        handle: Handle | None = None,
    ) -> None:
        self.behaviour = behaviour
        self._handle_event = handle
        self._under_way: dict[str, asyncio.Future[str]] = {}
        self._world = world
        public = [each for each in secrets if each.startswith(PUBLIC_PREFIX)]
        self._public_keys = [parse_public_key(each) for each in public]
        self._secrets = [parse_secret(each) for each in secrets if each not in public]
        self._seal_keys = [parse_wire_key(each) for each in seal_keys]
        self._on_event = on_event
        self._seen = ReplayGuard(MOST_IDS, REMEMBERED.total_seconds())
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self._latest: OrderedDict[str, str] = OrderedDict()
        self._counts = {"received": 0, "repeated": 0, "verified": 0, "refused": 0, "failed": 0}
        self._listener: asyncio.Server | None = None
        self._http: web.Server | None = None
        self._over: asyncio.Future[None] | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address as it is, with the real port (0 takes a free one). Raises Conflict, UsageError."""
        from aiohttp import web

        if self._listener is not None:
            raise Conflict("this receiver listens already")
        sock = await _bound(host, port)
        self._over = asyncio.get_running_loop().create_future()
        self._http = web.Server(
            self._handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=1.0,
        )
        self._listener = await asyncio.get_running_loop().create_server(self._http, sock=sock, backlog=_BACKLOG)
        return host, sock.getsockname()[1]

    async def wait(self) -> None:
        """Until it is stopped. Raises what `on_event` raised: of a closed pipe, BrokenPipeError."""
        if self._over is not None:
            await asyncio.shield(self._over)

    async def stop(self, grace: float = 1.0) -> None:
        """Accept nobody any more, let requests under way end within `grace` seconds, close every connection."""
        listener, http, self._listener, self._http = self._listener, self._http, None, None
        if listener is None or http is None:
            return
        listener.close()
        http.pre_shutdown()
        await http.shutdown(grace)
        await listener.wait_closed()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def counts(self) -> dict[str, int]:
        """How many were received (each event once), repeated, verified (of these two), refused and failed."""
        return dict(self._counts)

    def latest(self) -> Mapping[str, str]:
        """Subject -> the highest sequence received for it."""
        return dict(self._latest)

    # --- one request ------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        if is_stream(request):
            return await answer_stream(request, self._reply)
        if request.method != "POST":
            return web.Response(status=405, headers={"allow": "POST"}, text="POST events here\n")
        try:
            body = await _body(request)
        except (TooLarge, Malformed) as error:
            return self._answer(Heard(state=State.REFUSED, reason=error.message), error.status)
        return await self._reply(request.headers, body)

    async def _reply(self, headers: Mapping[str, str], body: bytes) -> web.Response:
        heard, status = self._take(headers, body)
        reason = ""
        if heard.state is State.REPEATED and heard.id in self._under_way:
            reason = await asyncio.shield(self._under_way[heard.id])
        elif heard.state is State.RECEIVED and challenge_in(heard.type, heard.data) is None:
            reason = await self._handled(heard)
        if reason:
            heard, status = msgspec.structs.replace(heard, state=State.FAILED, reason=reason), 500
        return self._answer(heard, status)

    async def _handled(self, heard: Heard) -> str:
        """Why the event could not be handled. Then it may come again."""
        if self._handle_event is None:
            return ""
        under_way = self._under_way[heard.id] = asyncio.get_running_loop().create_future()
        reason = "it was interrupted"
        try:
            reason = await self._handle_event(heard)
        finally:
            if reason:
                self._seen.release(heard.id)
            self._under_way.pop(heard.id, None)
            under_way.set_result(reason)
        return reason

    def _answer(self, heard: Heard, status: int) -> web.Response:
        """Tell of it, and only then answer the sender."""
        from aiohttp import web

        try:
            self._tell(heard)
        except Exception as error:  # noqa: BLE001 - it is `wait` that raises it
            if heard.state is State.RECEIVED:
                self._seen.release(heard.id)
            if self._over is not None and not self._over.done():
                self._over.set_exception(error)
            return web.Response(status=500, text="the event could not be handled\n")
        challenge = challenge_in(heard.type, heard.data)
        if challenge is not None and status < 300:
            return web.json_response({"challenge": challenge})
        return web.Response(status=status, text=f"{heard.reason}\n" if heard.reason else None)

    def _take(self, headers: Mapping[str, str], body: bytes) -> tuple[Heard, int]:
        """What this POST is, and the status it gets."""
        now = self._world.now()
        msg_id = headers.get(ID_HEADER, "")[:256].encode("utf-8", "replace").decode()  # any bytes may be in a header
        verified: bool | None = None
        try:
            if self._secrets or self._public_keys:
                verified = bool(verify(headers, body, self._secrets, now, public_keys=self._public_keys))
            heard = _heard(self._read(headers, body, msg_id), verified)
        except VerifyError as error:
            refused = None if verified is None and not self._secrets and not self._public_keys else bool(verified)
            return Heard(state=State.REFUSED, id=msg_id, verified=refused, reason=error.message), error.status
        status = self.behaviour(msg_id, self._attempt(msg_id)) if self.behaviour is not None else None
        if status is not None:
            return msgspec.structs.replace(heard, state=State.FAILED, reason=f"turned away with {status}"), status
        if msg_id and not self._seen.claim(msg_id, now):
            return msgspec.structs.replace(heard, state=State.REPEATED), 204
        late = bool(heard.sequence) and heard.sequence < self._latest.get(heard.subject, "")
        return msgspec.structs.replace(heard, late=late), 204

    def _read(self, headers: Mapping[str, str], body: bytes, msg_id: str) -> Message:
        return read_message(headers, body, self._seal_keys, Verified(msg_id, 0))

    def _attempt(self, msg_id: str) -> int:
        attempt = self._attempts.pop(msg_id, 0) + 1
        self._attempts[msg_id] = attempt
        if len(self._attempts) > MOST_IDS:
            self._attempts.popitem(last=False)
        return attempt

    def _tell(self, heard: Heard) -> None:
        if self._on_event is not None:
            try:
                self._on_event(heard)
            except BaseException:
                self._counts[State.FAILED.value] += 1
                raise
        self._counts[heard.state.value] += 1
        if heard.verified:
            self._counts["verified"] += heard.state in (State.RECEIVED, State.REPEATED)
        if heard.state is State.RECEIVED and heard.subject and not heard.late:
            self._latest[heard.subject] = heard.sequence
            if len(self._latest) > MOST_SUBJECTS:
                self._latest.popitem(last=False)


async def _body(request: web.BaseRequest) -> bytes:
    """The exact bytes of the body. Raises TooLarge, or Malformed when they do not all come."""
    from aiohttp import web

    limit = TooLarge(f"the body is longer than {BODY_LIMIT} bytes")
    if (request.content_length or 0) > BODY_LIMIT:
        raise limit
    pieces, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > BODY_LIMIT:
                    raise limit
                pieces.append(piece)
    except TimeoutError:
        raise Malformed(f"the body did not arrive within {BODY_SECONDS:g} s") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Malformed("the body broke off") from None
    return b"".join(pieces)


def _heard(message: Message, verified: bool | None) -> Heard:
    return Heard(
        state=State.RECEIVED,
        id=message.id,
        type=message.type[:1024],
        subject=message.subject[:1024],
        sequence=message.sequence[:1024],
        verified=verified,
        data=message.data,
    )


# --- where it listens, and what it prints ---------------------------------------------------------------------------


def listen_address(text: str) -> tuple[str, int]:
    """`[HOST]:PORT` as its parts: `:9000` and `9000` are on this machine only. Raises UsageError."""
    place = text if ":" in text else f":{text}"
    return split_address(f"127.0.0.1{place}" if place.startswith(":") and place.count(":") == 1 else place)


async def _bound(host: str, port: int) -> socket.socket:
    """A listening socket."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError, OverflowError):
        raise UsageError(f"cannot listen on {shown}: no such host", hint="[HOST]:PORT, with a local address") from None
    family, kind, proto, _, address = found[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(_BACKLOG)  # at once: Linux tells only now that another listener has the port
    except OSError as error:
        sock.close()
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
        raise Conflict(f"cannot listen on {shown}: {reason}", hint="take another port; port 0 is a free one") from None
    return sock


def printer(stream: TextIO, output: str = "text") -> Callable[[Heard], None]:
    """An `on_event` that writes one line for each POST: `text`, or `ndjson` (the fields of Heard)."""
    if output not in ("text", "ndjson"):
        raise UsageError(f"{output!r} is not an output of listen", hint="text or ndjson")

    def tell(heard: Heard) -> None:
        made = msgspec.json.encode(heard).decode() if output == "ndjson" else line(heard)
        stream.write(made + "\n")
        stream.flush()

    return tell


def line(heard: Heard) -> str:
    """The event in one line for people; what could move a terminal's cursor is written as `\\uXXXX`."""
    trust = {None: "not checked", True: "verified", False: "not verified"}[heard.verified]
    state = f"{heard.state}, late" if heard.late else heard.state.value
    words = [state, heard.type or "-", heard.subject or "-", heard.sequence or "-", trust]
    if heard.reason:
        words.append(heard.reason)
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in "  ".join(words))
