"""Planning: who gets a line, by which route, under which id."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import orjson
import pytest

from universal_registry.log.change import Change, Op
from universal_registry.propagation.routing.audience import Members
from universal_registry.propagation.routing.plan import (
    Planned,
    delivery_id,
    event_of,
    plan,
    plan_backfill,
    starts_backfill,
)
from universal_registry.propagation.routing.route import Route, RouteTable, parse_route
from universal_registry.propagation.routing.target import Target
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.record import Record, encode_record
from universal_registry.security.addresses import Policy

CATALOGUE = load_catalogue()
HERE = "0123456789ab"
NOBODY = Members()
AT = "2026-03-01T12:00:00.000Z"


def record(kind: str, name: str, revision: int, spec: dict[str, Any] | None = None, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "classification": CATALOGUE.kinds[kind].classifications[0].name,
        "namespace": "default",
        "uid": f"uid-{kind}-{name}",
        "generation": 1,
        "created_revision": revision,
        "created_at": AT,
        "updated_at": AT,
        "created_by": "uid:0",
        "updated_by": "uid:0",
        "fingerprint": "f",
        **changes,
    }
    return Record(kind=kind, name=name, revision=revision, spec=spec or {}, **fields)


def line(of: Record, op: Op = Op.PUT, *, revision: int | None = None, body: bytes | None = None) -> Change:
    return Change(
        revision=of.revision if revision is None else revision,
        seq=0,
        op=op,
        kind=of.kind,
        namespace=of.namespace,
        name=of.name,
        uid=of.uid,
        generation=of.generation,
        body=encode_record(of) if body is None else body,
        commitment="c",
        actor="uid:0",
        txn_id="t",
        at=AT,
    )


def policy(name: str, revision: int, terms: str, targets: tuple[str, ...], **more: Any) -> Record:
    body = {"selector": terms, "targets": list(targets), **more}
    spec = {"propagation": body}
    return record("policy", name, revision, spec, namespace="system", classification="PropagationPolicy")


def route(name: str, terms: str, *targets: str, revision: int = 2, **more: Any) -> Route:
    parsed = parse_route(policy(name, revision, terms, targets, **more), CATALOGUE)
    assert parsed is not None
    return parsed


def target(name: str, uid: str | None = None) -> Target:
    return Target(
        namespace="system",
        name=name,
        uid=uid or f"uid-{name}",
        revision=1,
        created_revision=1,
        transport="webhook",
        url=None,
        secret=None,
        network=Policy.PUBLIC,
        format="cloudevents",
        in_flight=None,
        timeout=None,
        paused=False,
        insecure_http=False,
    )


TARGETS = {each.address: each for each in (target("one"), target("two"))}
ALIAS = record("alias", "gs", 8, {"command": "git status"})


@dataclass
class Case:
    """A world in which one line is planned."""

    routes: tuple[Route, ...]

    def planned(self, change: Change, targets: dict[str, Target] = TARGETS) -> list[tuple[str, str]]:
        found = plan(change, None, RouteTable(self.routes), targets, HERE, NOBODY)
        names = {each.uid: each.name for each in self.routes}
        return sorted((each.target, names.get(each.route_uid, "")) for each in found)


def test_a_put_goes_to_each_target_of_each_route_that_selects_it() -> None:
    case = Case((route("a", "kind=alias", "one"), route("b", "name=gs", "two"), route("c", "kind=service", "two")))
    assert case.planned(line(ALIAS)) == [("system/one", "a"), ("system/two", "b")]


def test_a_target_gets_a_line_once_by_the_first_route() -> None:
    routes = (route("b", "kind=alias", "one"), route("a", "kind=alias", "one", "two"))
    assert Case(routes).planned(line(ALIAS)) == [("system/one", "a"), ("system/two", "a")]
    with_secrets = (*routes, route("z", "kind=alias", "one", secrets="include"))
    assert Case(with_secrets).planned(line(ALIAS)) == [("system/one", "z"), ("system/two", "a")]


def test_a_target_that_is_not_there_is_left_out() -> None:
    case = Case((route("a", "kind=alias", "one", "gone"),))
    assert case.planned(line(ALIAS)) == [("system/one", "a")]


def test_a_deletion_is_matched_by_the_last_document() -> None:
    labelled = record("alias", "gs", 8, {"command": "x"}, labels={"team": "web"})
    case = Case((route("a", "labels.team=web", "one"),))
    deletion = line(labelled, Op.DELETE, revision=11)
    assert case.planned(deletion) == [("system/one", "a")]
    assert case.planned(line(ALIAS, Op.DELETE, revision=11)) == []


def test_system_is_never_selected_unless_named() -> None:
    endpoint = record("endpoint", "mine", 5, {}, namespace="system")
    everything, kind = route("a", "", "one"), route("b", "kind=endpoint", "one")
    named = route("c", "kind=endpoint,namespace=system", "one")
    assert Case((everything, kind)).planned(line(endpoint)) == []
    assert Case((everything, kind, named)).planned(line(endpoint)) == [("system/one", "c")]


def event(audience: list[str], session: str = "s1") -> Change:
    body = orjson.dumps({"session": session, "audience": audience, "payload": "kid:sealed"})
    return line(ALIAS, Op.EVENT, revision=20, body=body)


def test_an_event_goes_to_its_audience_and_to_nobody_else() -> None:
    change = event(["system/two", "system/two", "system/unknown"])
    found = plan(change, None, RouteTable((route("a", "kind=alias", "one"),)), TARGETS, HERE, NOBODY)
    assert [(each.target, each.route_uid, each.session_id) for each in found] == [("system/two", "", "s1")]
    assert event_of(change).session == "s1"


def test_planning_twice_gives_the_same_ids() -> None:
    table = RouteTable((route("a", "kind=alias", "one", "two"),))
    first = plan(line(ALIAS), None, table, TARGETS, HERE, NOBODY)
    again = plan(line(ALIAS), ALIAS, RouteTable(table.routes), dict(TARGETS), HERE, NOBODY)
    assert first == again
    assert len({each.delivery_id for each in first}) == 2
    assert all(each.delivery_id.startswith("dlv_") and len(each.delivery_id) == 36 for each in first)


def test_anything_else_gives_another_id() -> None:
    base = (HERE, 8, 0, "r", 2, "t")
    others = [("ffffffffffff", 8, 0, "r", 2, "t"), (HERE, 9, 0, "r", 2, "t"), (HERE, 8, 1, "r", 2, "t")]
    others += [
        (HERE, 8, 0, "q", 2, "t"),
        (HERE, 8, 0, "r", 3, "t"),
        (HERE, 8, 0, "r", 2, "u"),
        (HERE, 80, 0, "r", 2, "t"),
    ]
    assert len({delivery_id(*each) for each in [base, *others]}) == 8
    assert delivery_id(*base) == "dlv_08a92014d510c4134d2e932d3d813cbb"


def test_a_new_route_starts_a_backfill_on_each_of_its_targets() -> None:
    put = line(policy("a", 9, "kind=alias", ("one", "two")))
    now = RouteTable((route("a", "kind=alias", "one", "two", revision=9),))
    assert list(starts_backfill(put, now, NOBODY)) == ["system/one", "system/two"]
    assert list(starts_backfill(put, now, NOBODY, RouteTable())) == ["system/one", "system/two"]
    assert starts_backfill(line(ALIAS), now, NOBODY) == {}
    assert starts_backfill(line(policy("a", 9, "kind=alias", ("one",)), Op.DELETE), RouteTable(), NOBODY) == {}
    assert starts_backfill(line(policy("a", 7, "kind=alias", ("one",))), now, NOBODY) == {}


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (route("a", "kind=alias", "one", "two", revision=5, source="old title"), ()),
        (route("a", "kind=alias", "one", revision=5), ("system/two",)),
        (route("a", "kind=service", "one", "two", revision=5), ("system/one", "system/two")),
        (route("a", "kind=alias", "one", "two", revision=5, secrets="include"), ("system/one", "system/two")),
    ],
)
def test_a_changed_route_sends_again_only_where_it_changed(before: Route, expected: tuple[str, ...]) -> None:
    put = line(policy("a", 9, "kind=alias", ("one", "two")))
    now = RouteTable((route("a", "kind=alias", "one", "two", revision=9),))
    assert tuple(starts_backfill(put, now, NOBODY, RouteTable((before,)))) == expected


def backfilled(change: Change, current: Record | None, revision: int = 9) -> Planned | None:
    return plan_backfill(
        change, current, route("a", "kind=alias", "one", revision=revision), TARGETS["system/one"], HERE
    )


def test_a_backfill_sends_the_newest_line_of_each_record_from_before_the_route() -> None:
    found = backfilled(line(ALIAS), ALIAS)
    assert found is not None
    assert (found.target, found.route_uid, found.session_id) == ("system/one", "uid-policy-a", "uid-policy-a")
    newer = record("alias", "gs", 12)
    service = record("service", "pay", 8)
    again = record("alias", "gs", 8, uid="another")
    assert backfilled(line(ALIAS), newer) is None
    assert backfilled(line(ALIAS), None) is None
    assert backfilled(line(ALIAS), again) is None
    assert backfilled(line(ALIAS, Op.DELETE), ALIAS) is None
    assert backfilled(line(service), service) is None


def test_a_line_that_no_route_can_match_is_not_even_decoded() -> None:
    routes = tuple(route(f"r{index}", f"kind=service,name=s{index}", "one") for index in range(500))
    table = RouteTable((*routes, route("e", "kind=endpoint", "one")))
    unreadable = line(ALIAS, body=b"not a record")
    assert plan(unreadable, None, table, TARGETS, HERE, NOBODY) == []
    best = min(timed(table, unreadable) for _ in range(20))
    assert best < 5e-6, f"{best * 1e6:.2f} us a line"


def timed(table: RouteTable, change: Change) -> float:
    start = perf_counter()
    for _ in range(1000):
        plan(change, None, table, TARGETS, HERE, NOBODY)
    return (perf_counter() - start) / 1000
