"""The route table: each route stands here once, for dispatch, for OpenAPI and for the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from universal_registry.api import handlers_access as access
from universal_registry.api import handlers_changes as changes
from universal_registry.api import handlers_compaction as compaction
from universal_registry.api import handlers_control as control
from universal_registry.api import handlers_health as health
from universal_registry.api import handlers_history as history
from universal_registry.api import handlers_keys as keys
from universal_registry.api import handlers_lanes as lanes
from universal_registry.api import handlers_metrics as metrics
from universal_registry.api import handlers_records as records
from universal_registry.api import handlers_sessions as said
from universal_registry.api import handlers_streams as streamed
from universal_registry.api import handlers_targets as targets
from universal_registry.api import handlers_watch as watched
from universal_registry.api.auth import Scope
from universal_registry.api.context import BULK_LIMITS
from universal_registry.api.params import (
    ACROSS,
    BY_CLASS,
    DASH,
    FILTERS,
    FRESH,
    LIMIT,
    MESSAGE,
    PAGING,
    REV,
    STRICT,
    THERE,
    WATCH,
    Param,
)
from universal_registry.api.route import Route
from universal_registry.api.routes_bulk import BULK_ROUTES
from universal_registry.api.routes_nexus import NEXUS_ROUTES
from universal_registry.api.routes_peers import PEER_ROUTES
from universal_registry.kernel.errors import Malformed, MethodNotAllowed, NotFound
from universal_registry.registry.words import near, shown

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


_RECORD = "/v1/{namespace}/{plural}/{name}"
_TARGET = "/v1/-/targets/{namespace}/{name}"
_CONSUMER = "/v1/-/consumers/{name}"
_BULK = BULK_LIMITS.body

ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", health.health, Scope.OPEN, "What is wrong, in words, and how each worker does"),
    Route("GET", "/health/live", health.health_live, Scope.OPEN, "Does the process answer?"),
    Route("GET", "/health/db", health.health_db, Scope.OPEN, "Can the database be read and written?"),
    Route("GET", "/health/ready", health.health_ready, Scope.OPEN, "Does the daemon do its whole work?"),
    Route("GET", "/metrics", metrics.metrics, Scope.READ, "Figures for Prometheus", answer="text"),
    Route("GET", "/openapi.json", health.openapi, Scope.READ, "This API as OpenAPI 3.1"),
    # records
    Route("GET", _RECORD, records.get_record, Scope.READ, "Read a record", (DASH, REV, FRESH), answer="record"),
    Route(
        "PUT", _RECORD, records.put_record, Scope.WRITE, "Make a record exactly this",
        (DASH, BY_CLASS, MESSAGE, STRICT), "record", "written", keyed=True,
    ),
    Route(
        "PATCH", _RECORD, records.patch_record, Scope.WRITE, "Merge into a record, or create it; or change it in steps",
        (DASH, BY_CLASS, MESSAGE, STRICT), "record", "written", keyed=True,
    ),
    Route(
        "DELETE", _RECORD, records.delete_record, Scope.WRITE, "Remove a record",
        (DASH, MESSAGE, Param("missing_ok", "no error when there is none", "boolean")), answer="written",
        keyed=True,
    ),
    Route(
        "GET", "/v1/{namespace}/{plural}", records.list_records, Scope.READ, "List records of a kind",
        (*FILTERS, *PAGING), answer="records",
    ),
    Route(
        "GET", "/v1/-/records", records.all_records, Scope.READ, "List records over kinds and namespaces",
        (*ACROSS, *FILTERS, *PAGING), answer="records",
    ),
    Route(
        "GET", "/v1/-/find", records.find_records, Scope.READ, "All records that a name may mean",
        (Param("name", "`[kind/]name`, exact", required=True), THERE, FRESH), answer="records",
    ),
    *BULK_ROUTES,
    Route(
        "GET", "/v1/-/export", records.export, Scope.READ, "Records as NDJSON documents, to apply elsewhere",
        (*ACROSS, *FILTERS, FRESH), answer="ndjson",
    ),
    Route(
        "GET", "/v1/-/history", history.history, Scope.READ, "What was done to a record, newest first",
        (
            Param("kind", "its kind", required=True),
            Param("name", "its name, exact", required=True),
            Param("namespace", "`default` if absent"),
            Param("before", "only revisions below this one: `next` of the page before", "integer"),
            LIMIT,
            FRESH,
        ),
    ),
    Route(
        "GET", "/v1/changes", changes.changes, Scope.READ, "The change log after a cursor; long poll",
        (
            Param("after", "the cursor of an earlier answer"),
            Param("from", "`beginning` (if absent), `now`, or a cursor"),
            Param("limit", "about so many lines, whole revisions only; 1 to 5,000, 1,000 if absent", "integer"),
            Param("wait", "seconds to wait for a change, 0 (if absent) to 60", "integer"),
        ),
        answer="ndjson",
    ),
    Route(
        "GET", "/v1/-/watch", watched.watch, Scope.READ, "Changes as they happen, until either side ends it",
        WATCH,
        answer="ndjson",
    ),
    Route("GET", "/v1/-/consumers", watched.consumers, Scope.READ, "All named consumers, and how far behind each is"),
    Route("GET", _CONSUMER, watched.consumer, Scope.READ, "One named consumer"),
    Route(
        "PUT", _CONSUMER, watched.put_consumer, Scope.WRITE, "Make a named consumer, or change what it reads",
        body=watched.ConsumerBody,
    ),
    Route(
        "POST", _CONSUMER + "/ack", watched.acknowledge, Scope.WRITE, "What a named consumer has dealt with",
        (Param("cursor", "everything up to it", required=True),),
    ),
    Route("DELETE", _CONSUMER, watched.remove_consumer, Scope.WRITE, "Forget a named consumer"),
    # the catalogue
    Route("GET", "/v1/-/kinds", records.kinds, Scope.READ, "All kinds"),
    Route("GET", "/v1/-/kinds/{kind}", records.kind, Scope.READ, "One kind, with its JSON Schema"),
    Route("GET", "/v1/-/classes", records.classes, Scope.READ, "All classifications"),
    # streams
    Route("GET", "/v1/stream", streamed.stream, Scope.READ, "A WebSocket: subscriptions and pushes, both at once",
          (Param("stream", "The stream as which it is counted; absent: the caller."),)),
    Route("GET", "/v1/-/streams", streamed.streams, Scope.READ, "All streams, and what each has carried"),
    Route("GET", "/v1/-/streams/{id}", streamed.one_stream, Scope.READ, "One stream, and what it has carried"),
    Route(
        "POST", "/v1/-/streams/{id}", streamed.send_data, Scope.WRITE, "Send data into a stream",
        body=streamed.DataBody, keyed=True,
    ),
    # propagation
    Route("GET", "/v1/-/targets", control.targets, Scope.READ, "All targets with their state"),
    Route(
        "POST", "/v1/-/targets", targets.add_target, Scope.PROPAGATE, "Add a target", body=targets.TargetBody,
        keyed=True,
    ),
    Route("GET", _TARGET, control.target, Scope.READ, "One target with its state"),
    Route(
        "PATCH", _TARGET, targets.set_target, Scope.PROPAGATE, "Change how a target is delivered to",
        body=targets.TargetSettings, keyed=True,
    ),
    Route(
        "POST", _TARGET + "/test", targets.test_target, Scope.PROPAGATE, "Send a test event now",
        (Param("show", "send nothing, and answer with the exact request", "boolean"),),
    ),
    Route(
        "POST", _TARGET + "/validate", targets.validate_target, Scope.PROPAGATE,
        "Send a challenge; who answers it is marked as validated",
    ),
    Route(
        "POST", _TARGET + "/lane", lanes.tell_target, Scope.PROPAGATE,
        "Pause, resume, disable or enable a target; reset or open its breaker", body=lanes.TellBody,
    ),
    Route("GET", _TARGET + "/secret", targets.secret, Scope.ADMIN, "The signing secret of a target"),
    Route(
        "POST", _TARGET + "/secret/rotate", targets.rotate_secret, Scope.ADMIN, "Replace the signing secret",
        body=targets.RotateBody, keyed=True,
    ),
    Route("GET", _TARGET + "/key", targets.seal_key, Scope.ADMIN, "The key that bodies for a target are sealed with"),
    Route(
        "POST", _TARGET + "/key/rotate", targets.rotate_seal_key, Scope.ADMIN, "Replace the sealing key",
        body=targets.RotateBody, keyed=True,
    ),
    Route(
        "GET", "/.well-known/webhook-keys", targets.webhook_keys, Scope.OPEN,
        "The public keys with which receivers check signatures (JWKS)",
    ),
    Route("GET", "/v1/-/routes", control.routes, Scope.READ, "All routes"),
    Route(
        "POST", "/v1/-/routes", control.add_route, Scope.PROPAGATE, "Make a route", body=control.RouteBody, keyed=True
    ),
    Route(
        "POST", "/v1/-/propagate", control.propagate, Scope.PROPAGATE, "Begin a propagation",
        (Param("state", "also say how the session stands now, as `state`", "boolean"),),
        body=control.PropagateBody, keyed=True,
    ),
    Route(
        "GET", "/v1/-/propagate", control.foresee, Scope.READ, "What a propagation would do; nothing is stored",
        (
            Param("mode", "unidirectional if absent"),
            Param("source", "`[kind/]name` or a selector"),
            Param("target", "`[namespace/]name` or a URL", many=True),
            Param("exclude", "of a broadcast: who is left out", many=True),
            Param("follow", "of a broadcast: also targets that come later", "boolean"),
            Param("on_failure", "of a chain: `stop` or `skip`"),
            Param("once", "the state now, once", "boolean"),
            Param("event", "an event, whatever it holds", "boolean"),
            Param("strict", "refuse what would have to be waited for", "boolean"),
        ),
    ),
    Route("GET", "/v1/-/sessions", control.sessions, Scope.READ, "All sessions"),
    Route("GET", "/v1/-/sessions/{id}", control.session, Scope.READ, "One session with its targets"),
    Route(
        "GET", "/v1/-/sessions/{id}/waterfall", control.waterfall, Scope.READ,
        "A session on one axis of time: per target what was planned, tried and delivered when",
    ),
    Route(
        "GET", "/v1/-/sessions/{id}/replay", said.foresee_replay, Scope.READ,
        "How many deliveries a replay would make; nothing is stored",
        (
            Param("since", "a revision, a cursor or a time (RFC 3339)"),
            Param("until", "likewise; the newest if absent"),
            Param("target", "only to this target", many=True),
            Param("select", "only records that this selects"),
        ),
    ),
    Route(
        "POST", "/v1/-/sessions/{id}/replay", said.replay, Scope.PROPAGATE, "Send again what a session sent",
        body=said.ReplayBody, keyed=True,
    ),
    Route(
        "POST", "/v1/-/sessions/{id}/{verb}", said.tell_session, Scope.PROPAGATE,
        "`pause`, `resume` or `cancel` a session", keyed=True,
    ),
    Route(
        "GET", "/v1/-/where", control.where, Scope.READ, "Which targets have a record, and why not",
        (Param("name", "`[kind/]name`", required=True), THERE),
    ),
    Route(
        "GET", "/v1/-/explain", said.explain, Scope.READ, "Who gets a record, and who does not, and why",
        (Param("name", "`[kind/]name`", required=True), THERE),
    ),
    Route(
        "GET", "/v1/-/deliveries", control.deliveries, Scope.READ, "Deliveries not done yet",
        (
            Param("target", "`[namespace/]name`"),
            Param("name", "of the record, `[kind/]name`"),
            THERE,
            Param("session", "a session's id"),
            Param("state", "pending, sending, waiting, dead or cancelled", many=True),
            Param("since", "those that became what they are since then: a time (RFC 3339), or how long ago, as `24h`"),
            Param("limit", "at most this many, 1 to 1,000; 100 if absent", "integer"),
        ),
    ),
    Route("GET", "/v1/-/deliveries/{id}", control.delivery, Scope.READ, "One delivery that has not arrived"),
    Route("GET", "/v1/-/deliveries/{id}/why", said.why, Scope.READ, "Why a delivery is where it is"),
    Route("GET", "/v1/-/deliveries/{id}/attempts", control.attempts, Scope.READ, "The failed attempts at a delivery"),
    Route(
        "POST", "/v1/-/deliveries/{id}/redrive", lanes.redrive, Scope.PROPAGATE,
        "Send a delivery again that was given up", body=lanes.WhyBody,
    ),
    Route(
        "POST", "/v1/-/deliveries/{id}/skip", lanes.skip, Scope.PROPAGATE, "Go on without a delivery that was given up",
        body=lanes.WhyBody,
    ),
    Route(
        "GET", "/v1/-/status", control.status, Scope.READ, "What there is and how it goes",
        (Param("width", "with `Accept: text/plain`: the table of targets in so many columns", "integer"),),
    ),
    # the keys that values are sealed with
    Route(
        "GET", "/v1/-/keys", keys.keys, Scope.ADMIN, "The keys, and the rotation under way",
        (Param("count", "also how many rows each key is in: the whole log is read", "boolean"),),
    ),
    Route(
        "POST", "/v1/-/keys/rotate", keys.rotate, Scope.ADMIN, "Replace the key that seals",
        (Param("resume", "only go on with the rotation under way", "boolean"),),
    ),
    Route(
        "POST", "/v1/-/keys/retire", keys.retire, Scope.ADMIN, "Give up a key with which nothing is sealed any more",
        body=keys.RetireBody,
    ),
    # who may come in, and who did what
    Route(
        "GET", "/v1/-/compaction", compaction.look, Scope.ADMIN, "How far back the change log goes, and what could go",
    ),
    Route(
        "POST", "/v1/-/compaction", compaction.compact, Scope.ADMIN, "Drop of the change log what is past its time",
        (Param("seconds", "for about so long; 0 to 60, 10 if absent", "integer"),),
    ),
    Route("GET", "/v1/-/tokens", access.tokens, Scope.ADMIN, "All tokens, without what they are"),
    Route("POST", "/v1/-/tokens", access.add_token, Scope.ADMIN, "Make a token", body=access.TokenBody),
    Route("DELETE", "/v1/-/tokens/{name}", access.revoke_token, Scope.ADMIN, "Revoke a token"),
    Route(
        "GET", "/v1/-/audit", access.audit, Scope.ADMIN, "Who did or was refused what, newest first",
        (
            Param("since", "a time (RFC 3339), or how long ago, as `24h`"),
            Param("actor", "as `token:ci` or `uid:1000`, exact"),
            Param("action", "as `record.put`, or the part before its dot"),
            LIMIT,
        ),
    ),
    Route("GET", "/v1/-/audit/anchor", access.anchor, Scope.ADMIN, "The ends of the hash chains, to keep elsewhere"),
    *PEER_ROUTES,
    *NEXUS_ROUTES,
)  # fmt: skip


class Match(NamedTuple):
    """A route and the decoded values of its segments."""

    route: Route
    params: dict[str, str]


def match(method: str, path: str) -> Match:
    """The route of a raw path. HEAD is served by GET. Raises NotFound with a near path, MethodNotAllowed, Malformed."""
    segments = _segments(path)
    length, controls = len(segments), segments[1:2] == ["-"]
    for route, pattern in _TABLE.get(("GET" if method == "HEAD" else method, length, controls), ()):
        if (params := _fits(pattern, segments)) is not None:
            return Match(route, params)
    allowed = {
        each
        for (each, *there), found in _TABLE.items()
        if there == [length, controls] and any(_fits(pattern, segments) is not None for _, pattern in found)
    }
    if allowed:
        allow = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
        raise MethodNotAllowed(f"{method[:20]} is not for {path[:100]}", hint=f"allowed: {allow}", allow=allow)
    raise _no_such_path(path)


def _fits(pattern: _Pattern, segments: Sequence[str]) -> dict[str, str] | None:
    literals, names = pattern
    for at, wanted in literals:
        if segments[at] != wanted:
            return None
    params = {name: segments[at] for at, name in names}
    return params if all(params.values()) else None  # a name is never empty


def _segments(path: str) -> list[str]:
    segments = path.split("/")[1:]
    if path.isascii() and path.isprintable() and "%" not in path:
        return segments
    return [_decode(segment) for segment in segments]


def _decode(segment: str) -> str:
    """A segment percent-decoded, once. A slash that was encoded stays in it; a NUL or other than UTF-8 is refused."""
    if _BAD_ESCAPE.search(segment):
        raise Malformed(f"path segment {segment[:60]!r}: % is not followed by two hex digits", hint="write %25 for %")
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise Malformed(f"path segment {segment[:60]!r} is not UTF-8 once decoded") from None
    if "\0" in text:
        raise Malformed(f"path segment {segment[:60]!r} holds a NUL")
    return text


def _no_such_path(path: str) -> NotFound:
    if path != "/" and path.endswith("/"):
        return NotFound(f"there is nothing at {shown(path)}", hint="leave out the slash at the end")
    guesses = near(path, tuple(dict.fromkeys(route.pattern for route in ROUTES)))
    hint = f"did you mean {guesses[0]}?" if guesses else "GET /openapi.json lists all paths"
    return NotFound(f"there is nothing at {shown(path)}", hint=hint, did_you_mean=guesses)


_Places = tuple[tuple[int, str], ...]
_Pattern = tuple[_Places, _Places]
"""The literals of a pattern and its names, each with its place."""


def _table() -> dict[tuple[str, int, bool], list[tuple[Route, _Pattern]]]:
    """By method, number of segments, and whether the second is `-`, which means the control plane and is no name."""
    found: dict[tuple[str, int, bool], list[tuple[Route, _Pattern]]] = {}
    # Literal patterns come before those with names.
    for route in sorted(ROUTES, key=lambda route: [segment.startswith("{") for segment in route.segments]):
        places = list(enumerate(route.segments))
        literals = tuple((at, segment) for at, segment in places if not segment.startswith("{"))
        names = tuple((at, segment.strip("{}")) for at, segment in places if segment.startswith("{"))
        key = (route.method, len(places), route.segments[1:2] == ["-"])
        found.setdefault(key, []).append((route, (literals, names)))
    return found


_TABLE = _table()
