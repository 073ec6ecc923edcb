"""Planning: which targets a line of the log concerns. Pure and deterministic, so that planning twice is harmless."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

import msgspec

from universal_registry.log.change import Change, Op
from universal_registry.propagation.routing.audience import Members
from universal_registry.propagation.routing.modes import SKIP
from universal_registry.propagation.routing.route import KIND as ROUTE_KIND
from universal_registry.propagation.routing.route import Route, RouteTable
from universal_registry.propagation.routing.target import KIND as TARGET_KIND
from universal_registry.propagation.routing.target import Target
from universal_registry.registry.record import Record, decode_record


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is to be delivered to a target ("namespace/name"). `route_uid` is empty for a one-shot event.

    `after`: the targets that must have the line first, or, where it `skips`, have been given up.
    """

    target: str
    route_uid: str
    session_id: str
    delivery_id: str
    after: tuple[str, ...] = ()
    skips: bool = False
    replay_of: str = ""


CONTROL, REPLAY = "control", "replay"


class Event(msgspec.Struct, frozen=True):
    """What planning needs of an event line: its session, and the addresses of the targets that it is for, in order.

    `on_failure` (stop or skip): each waits for the one before it. `deadline` (RFC 3339): nothing is sent after it.
    A line whose `mode` is CONTROL or REPLAY is itself sent to nobody: it says something about the session `of`.
    """

    session: str
    audience: tuple[str, ...]
    mode: str = ""
    on_failure: str = ""
    deadline: str = ""
    of: str = ""
    verb: str = ""
    since: str = ""
    until: str = ""
    select: str = ""


_event_decoder = msgspec.json.Decoder(Event)
_SMALL_BYTES = 4096
_decoded = lru_cache(maxsize=256)(decode_record)  # as many as a lane has planned and not sent


def event_of(change: Change) -> Event:
    """Session and audience of an event line; the sealed payload is not opened."""
    return _event_decoder.decode(change.body or b'{"session":"","audience":[]}')


def decoded(body: bytes) -> Record:
    """The record in a line's body, not to be changed: a small one is decoded once for its plan and its sending."""
    return _decoded(body) if len(body) <= _SMALL_BYTES else decode_record(body)


def plan(
    change: Change,
    record: Record | None,
    table: RouteTable,
    targets: Mapping[str, Target],
    incarnation: str,
    members: Members,
) -> list[Planned]:
    """The deliveries of a line: at most one for each target, by the first route in order of precedence.

    `record`: the body, decoded, where that is at hand (of a deletion: as it last was). `table`: the routes as of the
    line's own revision. `targets`: by address; one that is not there is left out. `members`: who was a target when.
    """
    if change.op is Op.EVENT:
        return _plan_event(change, targets, incarnation)
    routes = table.candidates(change.kind, change.name)
    if not routes:
        return []
    if record is None:
        if change.body is None:
            return []
        record = decoded(change.body)
    chosen: dict[str, Route] = {}
    for route in routes:
        if route.takes(change, record):
            named = targets if route.follow else route.targets
            for address in named:
                if address not in chosen and (
                    not route.follow or members.includes(route.audience, address, change.revision)
                ):
                    chosen[address] = route
    return [
        _planned(change, route, targets[address], incarnation)
        for address, route in chosen.items()
        if address in targets
    ]


def _plan_event(change: Change, targets: Mapping[str, Target], incarnation: str) -> list[Planned]:
    event = event_of(change)
    if event.mode in (CONTROL, REPLAY):
        return []
    audience = tuple(dict.fromkeys(event.audience))
    return [
        Planned(
            target=address,
            route_uid="",
            session_id=event.session,
            delivery_id=delivery_id(incarnation, change.revision, change.seq, "", 0, targets[address].uid),
            after=audience[:hop] if event.on_failure else (),
            skips=event.on_failure == SKIP,
        )
        for hop, address in enumerate(audience)
        if address in targets
    ]


def _planned(change: Change, route: Route, target: Target, incarnation: str) -> Planned:
    return Planned(
        target=target.address,
        route_uid=route.uid,
        session_id=route.uid,
        delivery_id=delivery_id(incarnation, change.revision, change.seq, route.uid, route.revision, target.uid),
        after=route.earlier(target.address),
        skips=route.skips,
    )


def delivery_id(incarnation: str, revision: int, seq: int, route_uid: str, route_revision: int, target_uid: str) -> str:
    """The same for the same line, route version and target, on every attempt and after every restart."""
    text = f"{incarnation}\0{revision}\0{seq}\0{route_uid}\0{route_revision}\0{target_uid}"
    return f"dlv_{sha256(text.encode()).hexdigest()[:32]}"


def starts_backfill(
    change: Change,
    table: RouteTable,
    members: Members,
    before: RouteTable | None = None,
    ended: Collection[str] = (),
) -> dict[str, str]:
    """The targets whose lanes stop at this line to send a route's current state, and that route's uid (empty: of all
    routes to the target). The line is the route's own put, or that of a target which routes mean from now on; or it
    removes a route whose session was cancelled (`ended`), for what it left undone others may still want.

    `table`: as of the line's revision. With `before` (as of the revision before it), targets to which the route already
    sent the very same are left out, so that a new title sends nothing again.
    """
    if change.op is Op.DELETE and change.kind == ROUTE_KIND and change.uid in ended and before is not None:
        return _left_to_others(before.by_uid.get(change.uid), change.revision, table, members)
    if change.op is not Op.PUT:
        return {}
    if change.kind == TARGET_KIND:
        return _newly_meant(change, table, members)
    route = table.by_uid.get(change.uid) if change.kind == ROUTE_KIND else None
    if route is None or route.revision != change.revision:
        return {}
    old = before.by_uid.get(change.uid) if before is not None else None
    named = addressed(route, members, change.revision)
    if old is not None and route.same_delivery(old):
        had = set(addressed(old, members, change.revision - 1))
        named = [address for address in named if address not in had]
    return dict.fromkeys(named, route.uid)


def _left_to_others(route: Route | None, at: int, table: RouteTable, members: Members) -> dict[str, str]:
    """The targets of a route that has gone which other routes mean, too."""
    named = addressed(route, members, at - 1) if route is not None else ()
    return {
        address: "" for address in named if any(address in addressed(other, members, at) for other in table.to(address))
    }


def _newly_meant(change: Change, table: RouteTable, members: Members) -> dict[str, str]:
    """A target that other labels, say, bring into the audience of routes that follow."""
    address, at = f"{change.namespace}/{change.name}", change.revision
    routes = [
        route.uid
        for route in table.following
        if route.revision < at
        and members.includes(route.audience, address, at)
        and not members.includes(route.audience, address, at - 1)
    ]
    return {address: routes[0] if len(routes) == 1 else ""} if routes else {}


def addressed(route: Route, members: Members, revision: int) -> Sequence[str]:
    """The targets that a route meant at a revision."""
    return members.meant(route.audience, revision) if route.follow else route.targets


def plan_backfill(
    change: Change, record: Record | None, route: Route, target: Target, incarnation: str
) -> Planned | None:
    """The delivery of an older line as part of a backfill; None when it is not part of it.

    `record`: the record as it is now (None: deleted). Only its newest line goes: what came later is planned as it
    comes. The caller gives lines from before the backfill's own.
    """
    if change.op is not Op.PUT or record is None or record.revision != change.revision or record.uid != change.uid:
        return None
    return _planned(change, route, target, incarnation) if route.takes(change, record) else None
