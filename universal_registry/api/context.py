"""What handlers are given: the parts of the product that they call, and the one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from universal_registry.api.forms import FORM_TYPE, form_pairs, model_object
from universal_registry.api.http import Request, Response, packed
from universal_registry.kernel.errors import Invalid, Malformed, UsageError
from universal_registry.kernel.limits import DEFAULT_LIMITS, Limits
from universal_registry.kernel.loader import load_json
from universal_registry.observe.health import Health
from universal_registry.registry.key_control import KeyControl
from universal_registry.registry.once import Once
from universal_registry.registry.service import Actor, RegistryService

if TYPE_CHECKING:
    from universal_registry.api.watch_lines import Lines
    from universal_registry.observe.audit import Audit
    from universal_registry.observe.denials import Denials
    from universal_registry.observe.figures import FiguresReader
    from universal_registry.observe.streams import Traffic
    from universal_registry.propagation.control import PropagationControl
    from universal_registry.propagation.studio.exchange import StudioExchange
    from universal_registry.registry.consumers import Consumers
    from universal_registry.registry.tokens import Tokens
    from universal_registry.storage.compaction import Compaction
    from universal_registry.transports.peer import Links, Pairing, Status

BODY_LIMIT = DEFAULT_LIMITS.body
BULK_LIMITS = Limits(body=16 << 20, keys=1_000_000)
_THREAD_FROM = 256 << 10
Model = TypeVar("Model", bound=msgspec.Struct)


class Wakeup:
    """Wakes everyone who waits for the next commit. Carries no data: whoever wakes looks for himself."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.closing = False

    def notify(self) -> None:
        """Wake all who wait now; those who come later wait for the next call."""
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        """Wake all, and let nobody wait again: the server is stopping."""
        self.closing = True
        self.notify()

    def ticket(self) -> asyncio.Event:
        """The event of the next `notify`. Take it before looking, so that nothing is missed between look and wait."""
        return self._event


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What shows who may come in, which keys seal, who did what, and how it goes."""

    tokens: Tokens
    keys: KeyControl
    compaction: Compaction
    audit: Audit
    denials: Denials
    figures: FiguresReader
    consumers: Consumers
    streams: Traffic
    studio: StudioExchange
    links: Links
    pairing: Pairing
    link_status: Status


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that handlers call. `still` says whether an actor may still send such a request, for answers that last.
    `openapi` gives the OpenAPI document as JSON bytes."""

    observed: Observed
    service: RegistryService
    control: PropagationControl
    health: Health
    wakeup: Wakeup
    lines: Lines
    still: Callable[[Request, Actor], bool]
    openapi: Callable[[], bytes]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One admitted request. `params`: the decoded segments that the route names. `actor`: None on open routes only.
    `once`: the Idempotency-Key of a write and the fingerprint of what it asks, if it bears one."""

    request: Request
    params: dict[str, str]
    actor: Actor | None
    once: tuple[str, str] | None = None

    def once_as(self, answer: Callable[[Any], Response]) -> Once | None:
        """What a verb needs to keep its answer: `answer` makes it of what the verb returns."""
        if self.once is None:
            return None
        key, fingerprint = self.once
        return Once(key=key, fingerprint=fingerprint, render=lambda result: packed(answer(result)))

    @property
    def who(self) -> Actor:
        """The actor of a route that is not open."""
        assert self.actor is not None
        return self.actor


Handler = Callable[[Context, Call], Awaitable[Response]]


async def json_body(call: Call, *, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The JSON value of the body, read strictly. Raises Malformed or TooLarge."""
    stated = call.request.content_type()
    if stated and stated != "application/json" and not stated.endswith("+json"):
        raise Malformed(f"the body is said to be {stated[:60]!r}", hint="send application/json, or a form")
    return await load_off_loop(load_json, call.request.body, limits)


async def load_off_loop(load: Callable[..., Any], body: bytes, limits: Limits) -> Any:
    """A body read by `load(body, limits=...)`; a large one in a thread, so that other requests go on."""
    if len(body) <= _THREAD_FROM:
        return load(body, limits=limits)
    return await asyncio.to_thread(load, body, limits=limits)


async def json_object(call: Call, *, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """The JSON object of the body. Raises Malformed, TooLarge, or Invalid when it is another value."""
    value = await json_body(call, limits=limits)
    if not isinstance(value, dict):
        raise Invalid("the body must be a JSON object", hint='such as {"spec": {"port": 8443}}')
    return value


async def body_as(model: type[Model], call: Call, *, limits: Limits = DEFAULT_LIMITS) -> Model:
    """The body, JSON or a form, as an instance of `model`. Raises Invalid naming the path of what does not fit."""
    form = call.request.content_type() == FORM_TYPE
    if form:
        value = model_object(await load_off_loop(form_pairs, call.request.body, limits), model)
    else:
        value = await json_object(call, limits=limits)
    try:
        return msgspec.convert(value, model, strict=not form)
    except msgspec.ValidationError as error:
        raise Invalid(f"the body does not fit: {error}", hint="GET /openapi.json describes it") from None


def needed(call: Call, name: str) -> str:
    """A query parameter that must be there. Raises UsageError, Invalid when it is empty."""
    value = call.request.value(name)
    if not value:
        if call.request.values(name):
            raise Invalid(f"the {name} is empty")
        raise UsageError(f"query parameter {name!r} is missing")
    return value
