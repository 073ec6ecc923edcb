"""Routes: which changes go to which targets, and what that was at each revision of the log."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.log.change import Change, Op
from universal_registry.propagation.routing.audience import Audience, own_names
from universal_registry.propagation.routing.modes import ON_FAILURE, SHAPES, SKIP, STOP, mode_of
from universal_registry.propagation.routing.route_filter import Filter, parse_filter
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.record import Record, decode_record
from universal_registry.registry.selector import Selector, glob_parts, parse_selector
from universal_registry.registry.words import shown

KIND = "policy"
CLASSIFICATION = "PropagationPolicy"
_WORDS = frozenset(
    {
        "mode",
        "pattern",
        "selector",
        "filter",
        "source",
        "targets",
        "exclude",
        "follow",
        "on_failure",
        "secrets",
        "delivery",
    }
)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A standing propagation: changes that `selector` matches go to each of `targets` ("namespace/name", no repeats).

    `uid` is also its session's id. `kinds`: the only kinds it can match (empty: any), for the index. `source`:
    as typed. `follow`: the targets are all that the audience means at a line's own revision, and none are named;
    `audience` without it: what was left out when they were named. `after`: each target waits for the one before it;
    `skips`: also after one that was given up. `peers`: the other sides of a two-way route; nothing is sent to them yet.
    """

    name: str
    uid: str
    revision: int
    mode: str
    selector: Selector
    targets: tuple[str, ...]
    filter: Filter = Filter()
    secrets_included: bool = False
    source: str = ""
    created_at: str = ""
    kinds: tuple[str, ...] = ()
    follow: bool = False
    audience: Audience = Audience()
    skips: bool = False
    peers: tuple[str, ...] = ()

    @property
    def after(self) -> bool:
        """Whether each target waits for the one before it."""
        return SHAPES[self.mode].after

    @property
    def precedence(self) -> tuple[bool, str, str]:
        """Of several routes to one target the smallest carries the change: secrets included first, then by name."""
        return (not self.secrets_included, self.name, self.uid)

    def same_delivery(self, other: Route) -> bool:
        """Whether both say the same of what is sent, targets aside."""
        mine = (self.selector, self.filter, self.secrets_included)
        return mine == (other.selector, other.filter, other.secrets_included)

    def takes(self, change: Change, record: Record) -> bool:
        """Whether it sends that change of the record."""
        return self.selector.matches(record) and self.filter.matches(change, record)

    def earlier(self, address: str) -> tuple[str, ...]:
        """The targets that this one waits for."""
        return self.targets[: self.targets.index(address)] if self.after and address in self.targets else ()


def parse_route(record: Record, catalogue: Catalogue) -> Route | None:
    """The route that the record describes; None when it is none (another class or namespace, or not enabled).

    Raises Invalid for one that cannot be followed as it is written: it is never followed in part.
    """
    body = record.spec.get("propagation")
    if record.kind != KIND or record.namespace != SYSTEM_NAMESPACE or record.classification != CLASSIFICATION:
        return None
    if body is None or record.spec.get("enabled") is False:
        return None
    if not isinstance(body, dict):
        raise Invalid(f"route {shown(record.name)}: spec.propagation must be an object")
    mode = _mode(record.name, body)
    terms = body.get("selector", {})
    if not isinstance(terms, str | dict | list):
        raise Invalid(f"route {shown(record.name)}: its selector must be text or an object")
    selector, source, follow = parse_selector(terms, catalogue), str(body.get("source", "")), body.get("follow") is True
    named = () if follow else _targets(record.name, body.get("targets"), empty=SHAPES[mode].everyone)
    return Route(
        name=record.name,
        uid=record.uid,
        revision=record.revision,
        mode=mode,
        selector=selector,
        filter=_filter(record.name, body.get("filter", "")),
        targets=() if SHAPES[mode].two_way else named,
        secrets_included=body.get("secrets", "redact") == "include",
        source=source,
        created_at=record.created_at,
        kinds=_kinds(selector, catalogue),
        follow=follow,
        audience=Audience(exclude=tuple(body.get("exclude", ())), itself=own_names(source)),
        skips=body.get("on_failure", STOP) == SKIP,
        peers=named if SHAPES[mode].two_way else (),
    )


def _filter(name: str, text: Any) -> Filter:
    if not isinstance(text, str):
        raise Invalid(f"route {shown(name)}: its filter must be text", hint="such as verb=deleted")
    try:
        return parse_filter(text)
    except Invalid as error:
        raise Invalid(f"route {shown(name)}: {error.message}", hint=error.hint) from None


def _mode(name: str, body: dict[str, Any]) -> str:
    """The route's mode. Refuses what would change the meaning if it were passed over."""
    try:
        mode = mode_of(body)
    except Invalid as error:
        raise Invalid(f"route {shown(name)}: {error.message}", hint=error.hint) from None
    for word, allowed in (("secrets", ("redact", "include")), ("on_failure", ON_FAILURE), ("follow", (True, False))):
        if word in body and body[word] not in allowed:
            raise Invalid(f"route {shown(name)}: {word} is {shown(body[word])}", hint=" or ".join(map(str, allowed)))
    if body.get("delivery", "every") != "every":
        raise Invalid(f"route {shown(name)}: delivery {shown(body['delivery'])} is not built yet", hint="built: every")
    if (body.get("follow") or body.get("exclude")) and not SHAPES[mode].everyone:
        raise Invalid(
            f"route {shown(name)}: follow and exclude are for mode broadcast", hint="list the targets instead"
        )
    exclude = body.get("exclude", [])
    if not isinstance(exclude, list) or not all(isinstance(word, str) and word for word in exclude):
        raise Invalid(f"route {shown(name)}: exclude must be a list of words", hint="such as [internal, test-*]")
    unknown = sorted(set(body) - _WORDS)
    if unknown:
        raise Invalid(f"route {shown(name)}: unknown option {shown(unknown[0])}", hint=", ".join(sorted(_WORDS)))
    return mode


def _targets(name: str, value: Any, *, empty: bool) -> tuple[str, ...]:
    """`empty`: there may be none, as of a broadcast when no target had been made yet."""
    listed = isinstance(value, list) and all(isinstance(each, str) and each for each in value)
    if not listed or not (value or empty):
        raise Invalid(f"route {shown(name)}: targets must be a list of names", hint="such as [system/mine]")
    return tuple(dict.fromkeys(full_address(each) for each in value))


def full_address(text: str) -> str:
    """`namespace/name` of a target from `[namespace/]name`. Targets stand in `system`, so only that prefix is one."""
    prefix = f"{SYSTEM_NAMESPACE}/"
    return text if text.startswith(prefix) and len(text) > len(prefix) else prefix + text


def _kinds(selector: Selector, catalogue: Catalogue) -> tuple[str, ...]:
    if selector.kinds or not selector.classifications:
        return selector.kinds
    return tuple(sorted({catalogue.classification(name).kind for name in selector.classifications}))


class RouteTable:
    """The routes at one revision, indexed by kind and, where a selector names records outright, by name."""

    def __init__(self, routes: tuple[Route, ...] = ()) -> None:
        self.routes = tuple(sorted(routes, key=lambda route: route.precedence))

    @cached_property
    def by_uid(self) -> dict[str, Route]:
        return {route.uid: route for route in self.routes}

    @cached_property
    def by_target(self) -> dict[str, tuple[Route, ...]]:
        """Target address -> its routes in order of precedence."""
        found: dict[str, list[Route]] = {}
        for route in self.routes:
            for target in route.targets:
                found.setdefault(target, []).append(route)
        return {target: tuple(routes) for target, routes in found.items()}

    def to(self, address: str) -> tuple[Route, ...]:
        """The routes that name the target, and those that may mean it, in order of precedence."""
        named = self.by_target.get(address, ())
        if not self.following:
            return named
        return tuple(sorted((*named, *self.following), key=lambda route: route.precedence))

    @cached_property
    def following(self) -> tuple[Route, ...]:
        """The routes whose targets are not named, but all that their audience means."""
        return tuple(route for route in self.routes if route.follow)

    @cached_property
    def _broad(self) -> dict[str, tuple[Route, ...]]:
        """Kind ("" for any) -> the routes whose selectors do not name records outright."""
        found: dict[str, list[Route]] = {}
        for route in self.routes:
            for kind in (route.kinds or ("",)) if not exact_names(route.selector) else ():
                found.setdefault(kind, []).append(route)
        return {kind: tuple(routes) for kind, routes in found.items()}

    @cached_property
    def _named(self) -> dict[tuple[str, str], tuple[Route, ...]]:
        """(Kind or "", name) -> the routes whose selectors name that record."""
        found: dict[tuple[str, str], list[Route]] = {}
        for route in self.routes:
            for name in exact_names(route.selector):
                for kind in route.kinds or ("",):
                    found.setdefault((kind, name), []).append(route)
        return {place: tuple(routes) for place, routes in found.items()}

    def candidates(self, kind: str, name: str) -> tuple[Route, ...]:
        """The routes that may match a record of this kind and name, by precedence. Cheap where there are none."""
        broad, named = self._broad, self._named
        lists = [broad.get(kind), broad.get("")]
        if named:
            lists += [named.get((kind, name)), named.get(("", name))]
        found = [routes for routes in lists if routes]
        if not found:
            return ()
        if len(found) == 1:
            return found[0]
        return tuple(sorted((route for routes in found for route in routes), key=lambda route: route.precedence))


def exact_names(selector: Selector) -> tuple[str, ...]:
    """The names that a selector without wildcards asks for; empty when it has wildcards, or asks for no name."""
    names = []
    for glob in selector.names:
        parts = glob_parts(glob)
        if any(wild for _, wild in parts):
            return ()
        names.append("".join(text for text, _ in parts))
    return tuple(dict.fromkeys(names))


class RouteHistory:
    """Every version of the route table, from the lines about policies in `system`, added in order of the log.

    `faults`: name -> why a route in force at the end cannot be followed; it is in no table meanwhile.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._revisions: list[int] = [0]
        self._tables: list[RouteTable] = [RouteTable()]
        self.faults: dict[str, str] = {}

    def add(self, change: Change, record: Record | None = None) -> bool:
        """Take a line into account; True when the table changed. `record`: its body, decoded, where that is at hand.

        Lines about anything else, and lines whose body compaction dropped, change nothing.
        """
        if change.kind != KIND or change.namespace != SYSTEM_NAMESPACE or change.op is Op.EVENT:
            return False
        if change.op is Op.PUT and record is None and change.body is None:
            return False
        self.faults.pop(change.name, None)
        route = self._read(change, record) if change.op is Op.PUT else None
        old = self.current()
        if route is None and change.uid not in old.by_uid:
            return False
        kept = tuple(each for each in old.routes if each.uid != change.uid)
        self._push(change.revision, RouteTable((*kept, route) if route else kept))
        return True

    def _read(self, change: Change, record: Record | None) -> Route | None:
        if record is None:
            assert change.body is not None
            record = decode_record(change.body)
        try:
            return parse_route(record, self._catalogue)
        except Invalid as error:
            self.faults[change.name] = str(error)
            return None

    def _push(self, revision: int, table: RouteTable) -> None:
        if revision == self._revisions[-1]:
            self._tables[-1] = table
        else:
            self._revisions.append(revision)
            self._tables.append(table)

    def at(self, revision: int) -> RouteTable:
        """The routes as of a revision, its own lines included."""
        return self._tables[bisect_right(self._revisions, revision) - 1]

    def current(self) -> RouteTable:
        return self._tables[-1]

    def secrets_allowed(self, route_uid: str) -> bool:
        """Whether what travels by that route may show its secrets. What the route says now counts, for retries too."""
        route = self.current().by_uid.get(route_uid)
        return route is not None and route.secrets_included

    def forget_before(self, revision: int) -> None:
        """Drop the tables that no reader at or beyond `revision` can ask for."""
        keep = max(0, bisect_right(self._revisions, revision) - 1)
        self._revisions = [0, *self._revisions[keep + 1 :]]
        self._tables = self._tables[keep:]
