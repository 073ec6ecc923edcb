"""What people are shown of links: facts, as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.kernel.ids import Key
from universal_registry.propagation.routing.counterparts import Counterpart
from universal_registry.security.pairing import fingerprint
from universal_registry.sync.audience import barred
from universal_registry.sync.identity import Identity
from universal_registry.sync.pairing import Paired
from universal_registry.sync.ports import Peer
from universal_registry.sync.session import Phase
from universal_registry.sync.version import lag_of
from universal_registry.transports.peer.link import Link
from universal_registry.transports.peer.links import Links

_MOST_REVIEWS = 100_000


def _lag(link: Link | None, known: Peer | None) -> int | None:
    """Positions of the peer's feed that are not here yet, of those that it had when the link was opened."""
    theirs = link.session.theirs if link is not None else None
    return max(0, theirs.feed - (known.cursor if known else 0)) if theirs is not None else None


class Status:
    """Reads links; changes nothing."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def all(self) -> dict[str, Any]:
        """What this node and each peer are to one another now: see docs/reference/http.md."""
        book = await self._links.book()
        identity = await self._links.identity()
        stored = {each.node: each for each in await self._links.replica.peers()} if identity is not None else {}
        reviewed = await self._links.reviews.keys(_MOST_REVIEWS) if identity is not None else []
        peers = [self._view(each, stored.get(each.node), identity, reviewed) for each in book.paired]
        whole = [each for each in peers if each["state"] in ("in_sync", "conflicted")]
        lag = lag_of(identity.vector, self._links.heard_of()) if identity is not None else {}
        names = {each.node: each.name for each in book.paired}
        roots = {(each["scope"], *each["without"], each["root"]) for each in whole}
        return {
            "node": identity.node if identity else None,
            "cluster": identity.cluster if identity else None,
            "fingerprint": fingerprint(self._links.machine.public) if identity else None,
            "scopes": list(identity.tracked) if identity else [],
            "policies": dict(identity.policies) if identity else {},
            "audiences": dict(identity.audiences) if identity else {},
            "revision_of_versions": identity.feed if identity else 0,
            "members": 1 + len(peers),
            "in_sync": 1 + len(whole),
            "root": next(iter(roots))[-1] if len(roots) == 1 else None,
            "converged": bool(peers) and len(whole) == len(peers) and len(roots) == len({each[:-1] for each in roots}),
            "items": peers,
            "origins": [
                {"node": node, "peer": names.get(node), "lag": lag[node]}
                for node in sorted(lag)
                if identity is not None and node != identity.node
            ],
            "invitations": [
                {"name": each.name, "scope": each.scope, "expires_at": each.expires_at, "for": each.called}
                for each in book.invited
                if not each.used_by
            ],
            "faults": book.faults,
        }

    def _view(
        self, peer: Paired, stored: Peer | None, identity: Identity | None, reviewed: Sequence[Key]
    ) -> dict[str, Any]:
        link = self._links.link_of(peer.node)
        known = link.session.peer if link is not None and link.live is not None else stored
        selector = self._links.replica.selector(peer.scope)
        conflicts = sum(map(selector.covers, reviewed))
        state, reason = self.state_of(peer, conflicts)
        feed = identity.feed if identity else 0
        return {
            "peer": peer.name,
            "node": peer.node,
            "fingerprint": fingerprint(peer.key),
            "url": peer.url or None,
            "scope": peer.scope,
            "without": barred(identity.audiences, identity.node, peer.node) if identity else [],
            "state": state,
            "reason": reason,
            "root": (link.session.root if link is not None else known.root if known else "") or None,
            "behind": max(0, feed - known.acked) if known else feed,
            "lag": _lag(link, known),
            "cursor": known.cursor if known else 0,
            "clock_offset_ms": known.offset_ms if known else None,
            "seen_at": (known.seen_at or None) if known else None,
            "conflicts": conflicts,
            "frames": [link.frames_in, link.frames_out] if link is not None else None,
            "bytes": [link.bytes_in, link.bytes_out] if link is not None else None,
        }

    async def counterparts(self) -> dict[str, Counterpart]:
        """What sessions between this registry and others are told of the peers, by name."""
        identity = await self._links.identity()
        if identity is None:
            return {}
        reviewed = tuple(await self._links.reviews.keys(_MOST_REVIEWS))
        found = {}
        for peer in (await self._links.book()).paired:
            state, reason = self.state_of(peer, 0)
            reach = self._links.reach(peer, identity)
            found[peer.name] = Counterpart(
                name=peer.name, state=state, reason=reason, scope=reach.within, barred=reach.without, reviewed=reviewed
            )
        return found

    def state_of(self, peer: Paired, conflicts: int) -> tuple[str, str]:
        """paused, partitioned (no link), degraded (refused for a reason that does not pass by itself), syncing,
        in_sync, or conflicted (in sync, with something to review); and why."""
        if peer.paused:
            return "paused", "paused by ureg peer pause"
        link, trouble = self._links.link_of(peer.node), self._links.troubles.get(peer.node)
        if link is None or link.live is None:
            if trouble is not None:
                return "degraded" if trouble.code else "partitioned", trouble.reason
            return "partitioned", "not connected yet" if peer.url else "it has not connected yet"
        if link.session.phase is not Phase.IN_SYNC:
            return "syncing", ""
        if conflicts:
            return "conflicted", f"{conflicts} record{'s' * (conflicts > 1)} to review: ureg conflict ls"
        return "in_sync", ""
