"""Peers, links with them, and conflicts. All rules are in `transports/peer` and `sync`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from universal_registry.api.context import Call, Context, body_as, needed
from universal_registry.api.http import Response, json_response
from universal_registry.api.moments import span
from universal_registry.kernel.errors import Invalid, NotFound, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key
from universal_registry.kernel.world import utc_text
from universal_registry.security.pairing import Asked, Sealed
from universal_registry.sync.conflict import Conflict
from universal_registry.sync.version import Version

if TYPE_CHECKING:
    from universal_registry.transports.peer.ports import Review

_OCTETS = (("content-type", "application/octet-stream"),)
_MOST_REVIEWS = 1000
_STAMP_BITS = 16
_NOTHING = Version("", 0, 0, None, True)


class InviteBody(msgspec.Struct, forbid_unknown_fields=True):
    """An invitation to make. `address`: where the other side reaches this registry, as `https://host:8443`. `scope`: a
    selector of kinds, namespaces and names; all outside of `system` if empty. `name`: what the other is called here."""

    address: str
    scope: str = ""
    name: str = ""
    lasts: str = "1h"


class JoinBody(msgspec.Struct, forbid_unknown_fields=True):
    """An invitation to use. `address`: where third members of a mesh reach this registry, if they can."""

    line: str
    name: str = ""
    address: str = ""


class AudienceBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who may have the records of a scope: names of peers, ids of nodes, or `here`; nobody: all may. `scope`: as of an
    invitation, and not empty."""

    scope: str
    members: list[str]


class ResolveBody(msgspec.Struct, forbid_unknown_fields=True):
    """For each path the number of the value that holds from now on (0: none, or what is shown); or `all`: what is shown
    holds everywhere."""

    kind: str
    name: str
    namespace: str = DEFAULT_NAMESPACE
    choices: dict[str, int] = {}
    all: bool = False


class PoliciesBody(msgspec.Struct, forbid_unknown_fields=True):
    """How conflicts are settled, by kind (`*`: all others): `manual`, `newest` or `prefer-node:NODE`."""

    policies: dict[str, str]


# --- peers ----------------------------------------------------------------------------------------------------------


async def peers(context: Context, _: Call) -> Response:
    """What this node is called, and its peers with the state of each link."""
    return json_response(await context.observed.link_status.all())


async def invite(context: Context, call: Call) -> Response:
    """Make an invitation. Its line is in this answer and in no other."""
    body = await body_as(InviteBody, call)
    made = await context.observed.pairing.invite(
        url=body.address, scope=body.scope, called=body.name, lasts=span(body.lasts), actor=call.who
    )
    return json_response(made)


async def join(context: Context, call: Call) -> Response:
    """Use an invitation: this registry and the one that made it are peers then."""
    body = await body_as(JoinBody, call)
    joined = await context.observed.pairing.join(body.line, name=body.name, url=body.address, actor=call.who)
    return json_response(joined._asdict())


async def audience(context: Context, call: Call) -> Response:
    """Say who may have which records: they go to nobody else, and nobody else passes them on. The same must be set on
    all nodes."""
    body = await body_as(AudienceBody, call)
    found = await context.observed.pairing.audience(body.scope, body.members, actor=call.who)
    return json_response({"audiences": {scope: list(members) for scope, members in found.items()}})


async def remove_peer(context: Context, call: Call) -> Response:
    """Be paired no more, or take an invitation back. What was exchanged stays."""
    await context.observed.pairing.remove(call.params["name"], actor=call.who)
    return json_response({"name": call.params["name"], "result": "removed"})


async def pause_peer(context: Context, call: Call) -> Response:
    """Exchange nothing with a peer until it is resumed."""
    return await _pause(context, call, paused=True)


async def resume_peer(context: Context, call: Call) -> Response:
    """Go on with a peer; also with one that was taken for a copy."""
    return await _pause(context, call, paused=False)


async def _pause(context: Context, call: Call, *, paused: bool) -> Response:
    name = call.params["name"]
    changed = await context.observed.pairing.pause(name, paused=paused, actor=call.who)
    return json_response({"name": name, "paused": paused, "changed": changed})


# --- what peers say: sealed, and opened before anything is done for it -----------------------------------------------


async def open_link(context: Context, call: Call) -> Response:
    """A peer opens a link."""
    asked = await body_as(Asked, call)
    return json_response(msgspec.to_builtins(await context.observed.links.accept(asked)))


async def joined(context: Context, call: Call) -> Response:
    """Somebody has an invitation of ours."""
    sealed = await body_as(Sealed, call)
    return json_response(await context.observed.pairing.joined(sealed))


async def link_sent(context: Context, call: Call) -> Response:
    """A peer says something."""
    answer = await context.observed.links.sent(call.params["link"], call.request.body)
    return Response(headers=_OCTETS, body=answer)


async def link_polled(context: Context, call: Call) -> Response:
    """A peer waits for what we have to say."""
    answer = await context.observed.links.polled(call.params["link"], call.request.body)
    return Response(headers=_OCTETS, body=answer)


# --- conflicts ------------------------------------------------------------------------------------------------------


async def conflicts(context: Context, call: Call) -> Response:
    """Records that somebody should look at; with `kind` and `name`, that one."""
    request, reviews = call.request, context.observed.links.reviews
    kind = request.value("kind")
    if kind or request.value("name"):
        key = context.service.key(
            needed(call, "kind"), request.value("namespace", DEFAULT_NAMESPACE), needed(call, "name")
        )
        review = await reviews.review(key)
        if review is None or not (review.conflicts or review.held):
            raise NotFound(f"{key} has no conflict", hint="`ureg conflict ls` lists those that have")
        return json_response({"items": [_review_view(review)]})
    if await context.observed.links.identity() is None:
        return json_response({"items": []})
    limit = request.integer("limit", 100, 1, _MOST_REVIEWS)
    return json_response({"items": [_review_view(each) for each in await reviews.reviews(limit)]})


async def resolve(context: Context, call: Call) -> Response:
    """Settle conflicts of a record: here, and, by and by, everywhere."""
    body = await body_as(ResolveBody, call)
    key = context.service.key(body.kind, body.namespace, body.name)
    reviews = context.observed.links.reviews
    review = await reviews.review(key)
    if review is None or not review.conflicts:
        raise NotFound(f"{key} has no conflict", hint="`ureg conflict ls` lists those that have")
    found = {each.path: each for each in review.conflicts}
    wanted = dict.fromkeys(found, 0) if body.all else body.choices
    if not wanted:
        raise UsageError("no path is named", hint='such as {"choices": {"/spec/port": 1}}, or {"all": true}')
    choices = {path: _chosen(key, found, path, number) for path, number in wanted.items()}
    await reviews.resolve(key, choices, call.who.name)
    left = await reviews.review(key)
    return json_response(
        {"kind": key.kind, "namespace": key.namespace, "name": key.name, "resolved": sorted(choices),
         "left": len(left.conflicts) if left else 0}
    )  # fmt: skip


async def policies(context: Context, call: Call) -> Response:
    """Set how conflicts are settled. The same must be set on all nodes."""
    body = await body_as(PoliciesBody, call)
    for kind in body.policies:
        if kind != "*":
            context.service.catalogue.kind(kind)
    identity = await context.observed.links.reviews.policies(body.policies)
    return json_response({"policies": dict(identity.policies)})


def _chosen(key: Key, found: dict[str, Conflict], path: str, number: int) -> Version:
    conflict = found.get(path)
    if conflict is None:
        raise Invalid(f"{key} has no conflict at {path[:80]!r}", hint=f"it has: {', '.join(found)}"[:200])
    if number == 0:
        return conflict.shown or _NOTHING
    if not 0 < number <= len(conflict.losers):
        hint = f"0 to {len(conflict.losers)}; `ureg conflict show` lists them"
        raise Invalid(f"{key} has no value {number} at {path}", hint=hint)
    return conflict.losers[number - 1]


def _review_view(review: Review) -> dict[str, Any]:
    key = review.key
    return {
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "held": review.held or None,
        "conflicts": [_conflict_view(each) for each in review.conflicts],
    }


def _conflict_view(conflict: Conflict) -> dict[str, Any]:
    first = conflict.shown or _NOTHING
    return {
        "path": conflict.path,
        "sort": conflict.sort.value,
        "values": [_version_view(number, each) for number, each in enumerate((first, *conflict.losers))],
    }


def _version_view(number: int, version: Version) -> dict[str, Any]:
    written = version.stamp >> _STAMP_BITS
    return {
        "choice": number,
        "shown": number == 0,
        "value": version.value,
        "removed": version.gone,
        "node": version.origin.partition("-")[0] or None,
        "at": utc_text(datetime.fromtimestamp(written / 1000, UTC)) if written else None,
    }
