"""From a Request to a Response: who asks, what for, and every error as a problem document."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from universal_registry.api.auth import Auth, Scope, authorise, check_host
from universal_registry.api.context import Call, Context, Observed, Wakeup
from universal_registry.api.http import Request, Response, problem_response, unpacked
from universal_registry.api.openapi import openapi_bytes
from universal_registry.api.reached import reached
from universal_registry.api.route import Route
from universal_registry.api.routes import Match, match
from universal_registry.api.routes_peers import LINKS
from universal_registry.api.shell_answers import COLUMN, for_shell, problem_for_shell, shell_type
from universal_registry.api.watch_hub import WatchHub
from universal_registry.api.watch_lines import Lines
from universal_registry.kernel.errors import (
    Forbidden,
    Malformed,
    MethodNotAllowed,
    RegistryError,
    TooLarge,
    Unauthenticated,
    UsageError,
)
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.limits import size_text
from universal_registry.kernel.world import World
from universal_registry.observe.health import Health
from universal_registry.registry.once import Replayed, check_key
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.words import near, shown

if TYPE_CHECKING:
    from universal_registry.propagation.control import PropagationControl

_ALWAYS = (("cache-control", "no-store"), ("x-content-type-options", "nosniff"))
MOST_REVISION = 999_999_999
_READS = ("GET", "HEAD")
Unexpected = Callable[[BaseException, str], None]
"""Told of an exception that nobody foresaw, with the trace id that its client was given."""


class Admitted(NamedTuple):
    """A request that may be heard: where it goes and who sent it."""

    match: Match
    actor: Actor | None


class Api:
    """The API, free of any transport. `unexpected` reports bugs; nothing of them goes to the client but a trace id."""

    def __init__(
        self,
        *,
        service: RegistryService,
        control: PropagationControl,
        health: Health,
        observed: Observed,
        auth: Auth,
        world: World,
        unexpected: Unexpected,
    ) -> None:
        self._auth = auth
        self._world = world
        self._unexpected = unexpected
        self.wakeup = Wakeup()
        service.on_commit(self.wakeup.notify)
        self.hub = WatchHub(service, world)
        service.on_commit(self.hub.on_commit)
        service.newest.on_coming(self.hub.on_coming)
        self.lines = Lines(self.hub, lambda: self.callers)
        observed.figures.watches, observed.figures.consumers = self.hub.figures, observed.consumers.all
        catalogue = service.catalogue
        self._context = Context(
            service=service,
            control=control,
            health=health,
            observed=observed,
            wakeup=self.wakeup,
            lines=self.lines,
            still=self.still,
            openapi=lambda: openapi_bytes(catalogue),
        )

    def close(self) -> None:
        """Let waiting requests answer at once, and no other wait again."""
        self.wakeup.close()
        self.hub.close()

    def now(self) -> datetime:
        """The time, in UTC."""
        return self._world.now().astimezone(UTC)

    @property
    def context(self) -> Context:
        """What handlers are given, for fronts that watch on behalf of a request."""
        return self._context

    @property
    def state(self) -> int | None:
        """As `RecordReader.state`."""
        return self._context.service.records.state

    def trace_id(self) -> str:
        """An id under which a problem is told."""
        return self._world.new_id()

    @property
    def callers(self) -> int:
        """What `caller` said is true as long as this number is the same."""
        return self._auth.version

    def still(self, request: Request, actor: Actor) -> bool:
        """Whether the sender of a request that was admitted would be admitted as the same now."""
        try:
            return self._auth.actor(request) == actor
        except Unauthenticated:
            return False

    def caller(self, request: Request) -> Actor | None:
        """Who sends such headers from that peer, the host being right; None when `admit` must look for itself."""
        try:
            check_host(request)
            return self._auth.actor(request)
        except RegistryError:
            return None

    def admit(self, request: Request, caller: Actor | None = None) -> Admitted:
        """What needs no body: host, path, method, caller. Raises the error to answer with.

        `caller`: what the method of that name said to the same peer and headers.
        """
        if caller is None and not request.path.startswith(LINKS):
            check_host(request)
        found = match(request.method, request.path)
        if found.route.scope is Scope.OPEN:
            return Admitted(found, None)
        try:
            actor = caller or self._auth.actor(request)
            authorise(actor, found.route.scope)
        except (Unauthenticated, Forbidden) as error:
            error.data["route"] = f"{found.route.method} {found.route.pattern}"
            raise
        return Admitted(found, actor)

    async def dispatch(self, request: Request, admitted: Admitted | None = None) -> Response:
        """The answer, whatever the request. Never raises but for cancellation. `admitted`: what `admit` said of it."""
        version = self._auth.version
        try:
            response = await self._answer(request, admitted or self.admit(request))
            if version != self._auth.version and request.method in _READS:
                self.admit(request)  # a token revoked while the answer was waited for: it is told nothing any more
        except Replayed as before:
            response = unpacked(before.answer)
        except RegistryError as error:
            return self.problem(error, request)
        except Exception as error:  # noqa: BLE001 - the one place where a bug becomes an answer: reported, and 500
            return self.bug(error)
        if "accept" in request.headers:
            reads = request.method in _READS
            response = for_shell(response, request, match(request.method, request.path).route.pattern if reads else "")
        headers = (*response.headers, *_ALWAYS)
        return Response(status=response.status, headers=headers, body=response.body, through=response.through)

    async def _answer(self, request: Request, admitted: Admitted) -> Response:
        route = admitted.match.route
        if route.scope is not Scope.OPEN:
            _check_query(request, route)
            if request.query and (wanted := request.integer("min_revision", 0, 1, MOST_REVISION)):
                await reached(self._context, wanted)
        if len(request.body) > route.body_limit:
            raise too_large(route.body_limit)
        if request.header("content-encoding") not in ("", "identity"):
            raise Malformed("the body is compressed", hint="send it without Content-Encoding")
        call = Call(
            request=request,
            params=admitted.match.params,
            actor=admitted.actor,
            once=_once(request) if route.keyed else None,
        )
        if call.once is not None:
            await self._context.service.replay(call.who, *call.once)
        return await route.handler(self._context, call)

    def problem(self, error: RegistryError, request: Request | None = None) -> Response:
        """The answer that tells of an error, `request` if it could be read. Denials are counted here, where each is
        answered once."""
        if isinstance(error, Unauthenticated | Forbidden):
            who, route = error.data.get("actor", "unknown"), error.data.get("route", "")
            why = error.message if isinstance(error, Unauthenticated) else error.hint
            self._context.observed.denials.note(who, f"{error.code}: {why}", route)
        extra: tuple[tuple[str, str], ...] = _ALWAYS
        if isinstance(error, MethodNotAllowed):
            extra += (("allow", str(error.data.get("allow", ""))),)
        if (head := error.data.get("head")) is not None:
            extra += (("registry-revision", str(head)),)
        if error.status == 401:
            extra += (("www-authenticate", 'Bearer realm="universal-registry"'),)
        response = problem_response(error, self._world.new_id(), extra)
        return response if request is None else problem_for_shell(response, error, request)

    def bug(self, error: BaseException) -> Response:
        """The answer to a request that met a bug; the bug is reported."""
        trace_id = self._world.new_id()
        self._unexpected(error, trace_id)
        hidden = RegistryError("something went wrong inside the registry", hint=f"its log knows more of {trace_id}")
        return problem_response(hidden, trace_id, _ALWAYS)


def _check_query(request: Request, route: Route) -> None:
    """Raises UsageError for a query parameter that the route does not know: a mistyped filter must not match all."""
    if not request.query:
        return
    known = tuple(param.name for param in route.query)
    if shell_type(request):
        known += (COLUMN,)
    for name, _ in request.query:
        if name not in known:
            guesses = near(name, known)
            hint = f"did you mean {guesses[0]!r}?" if guesses else f"it takes: {', '.join(known) or 'none'}"
            raise UsageError(f"unknown query parameter {shown(name)}", hint=hint, did_you_mean=guesses)


def _once(request: Request) -> tuple[str, str] | None:
    """The Idempotency-Key, and a fingerprint of all that decides what the request does."""
    said = request.headers.get("idempotency-key")
    if said is None:
        return None
    conditions = [request.header(name) for name in ("content-type", "if-match", "if-none-match")]
    asked = canonical([request.method, request.path, request.query, conditions])
    return check_key(said), sha256(sha256(asked).digest() + request.body).hexdigest()


def too_large(limit: int) -> TooLarge:
    """The error for a body beyond the limit of its route."""
    return TooLarge("the body is too large", hint=f"at most {size_text(limit)}", limit=limit)
