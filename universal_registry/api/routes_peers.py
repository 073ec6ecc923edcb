"""The routes of peers, links and conflicts: a part of the one table (`routes.py`)."""

from __future__ import annotations

from universal_registry.api import handlers_peers as peers
from universal_registry.api.auth import Scope
from universal_registry.api.context import BULK_LIMITS
from universal_registry.api.params import LIMIT, Param
from universal_registry.api.route import Route
from universal_registry.security.pairing import Asked, Sealed

LINKS = "/v1/-/links"
"""Below it only those are heard who prove, by what they say, that they are paired: no token, and any Host header."""
_PEER = "/v1/-/peers/{name}"
_LONG = BULK_LIMITS.body

PEER_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/-/peers", peers.peers, Scope.READ, "This node and its peers, and how each link does"),
    Route(
        "POST", "/v1/-/peers/invitations", peers.invite, Scope.ADMIN, "Make an invitation for another registry",
        body=peers.InviteBody,
    ),
    Route("POST", "/v1/-/peers", peers.join, Scope.ADMIN, "Use an invitation of another registry", body=peers.JoinBody),
    Route("PUT", "/v1/-/peers/audiences", peers.audience, Scope.ADMIN, "Say who may have which records",
          body=peers.AudienceBody),
    Route("DELETE", _PEER, peers.remove_peer, Scope.ADMIN, "Be paired no more, or take an invitation back"),
    Route("POST", _PEER + "/pause", peers.pause_peer, Scope.ADMIN, "Exchange nothing with a peer for now"),
    Route("POST", _PEER + "/resume", peers.resume_peer, Scope.ADMIN, "Go on with a peer"),
    # what peers say
    Route("POST", LINKS, peers.open_link, Scope.OPEN, "A peer opens a link", body=Asked),
    Route("POST", LINKS + "/join", peers.joined, Scope.OPEN, "Somebody uses an invitation; sealed", body=Sealed),
    Route("POST", LINKS + "/{link}/send", peers.link_sent, Scope.OPEN, "What a peer says; sealed",
          answer="octets", body_limit=_LONG),
    Route("POST", LINKS + "/{link}/poll", peers.link_polled, Scope.OPEN, "A peer waits for what we say; sealed",
          answer="octets"),
    # conflicts
    Route(
        "GET", "/v1/-/conflicts", peers.conflicts, Scope.READ, "Records whose merge somebody should look at",
        (
            Param("kind", "of one record"), Param("namespace", "of that record; `default` if absent"),
            Param("name", "of that record, exact"), LIMIT,
        ),
    ),
    Route(
        "POST", "/v1/-/conflicts/resolve", peers.resolve, Scope.ADMIN, "Say which values hold",
        body=peers.ResolveBody,
    ),
    Route(
        "PUT", "/v1/-/conflicts/policies", peers.policies, Scope.ADMIN, "How conflicts are settled, by kind",
        body=peers.PoliciesBody,
    ),
)  # fmt: skip
