"""Who is asking: the local user by what the kernel says of a socket's other end, everyone else by a token."""

from __future__ import annotations

from enum import StrEnum

from universal_registry.api.http import PeerKind, Request
from universal_registry.kernel.errors import Forbidden, MisdirectedRequest, Unauthenticated
from universal_registry.registry.service import Actor
from universal_registry.registry.tokens import Tokens
from universal_registry.security.tokens import HINT, parse_bearer, token_matches


class Scope(StrEnum):
    """What a route asks of its caller. OPEN asks nothing, not even a name."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    PROPAGATE = "propagate"
    ADMIN = "admin"


class Auth:
    """Knows the users and tokens that may come in.

    `uid`: the user whose daemon this is; that user and root are administrators on the Unix socket and in process.
    `admin_token_hash`: of the token in `config/admin.token`; None when there is none. `tokens`: all others.
    """

    def __init__(self, *, uid: int, admin_token_hash: str | None, tokens: Tokens | None = None) -> None:
        self._uid = uid
        self._admin_token_hash = admin_token_hash
        self._tokens = tokens

    @property
    def version(self) -> int:
        """Counts the changes of who may come in: what `actor` said before is not to be relied on after one."""
        return 0 if self._tokens is None else self._tokens.version

    def actor(self, request: Request) -> Actor:
        """Who sent the request. Raises Unauthenticated."""
        peer = request.peer
        if peer.kind is PeerKind.INPROC:
            return Actor(name=f"uid:{self._uid}", admin=True)
        if peer.kind is PeerKind.UNIX and peer.uid is not None and peer.uid in (self._uid, 0):
            return Actor(name=f"uid:{peer.uid}", admin=True)
        token = parse_bearer(request.header("authorization"))
        if self._admin_token_hash is not None and token_matches(token, self._admin_token_hash):
            return Actor(name="token:admin", admin=True)
        found = None if self._tokens is None else self._tokens.find(token)
        if found is None:
            raise Unauthenticated("the token is not valid here", hint=HINT)
        scopes = frozenset(found.scopes)
        return Actor(name=f"token:{found.name}", admin=Scope.ADMIN in scopes, scopes=scopes | {Scope.READ})


def authorise(actor: Actor, scope: Scope) -> None:
    """Raises Forbidden unless the actor may use routes of that scope."""
    if not actor.may(scope):
        hint = f"it needs the scope {scope.value!r}"
        raise Forbidden(f"{actor.name} may not do this", hint=hint, actor=actor.name)


def check_host(request: Request) -> None:
    """Raises MisdirectedRequest when a TCP request names a host that this listener is not.

    A web page that has a browser's DNS point its own name at this machine (DNS rebinding) fails here.
    """
    if request.peer.kind is not PeerKind.TCP:
        return
    host = request.header("host").lower()
    if host not in request.peer.hosts:
        allowed = ", ".join(sorted(request.peer.hosts))
        raise MisdirectedRequest(f"the Host header {host[:80]!r} is not this server", hint=f"use {allowed}")
