"""Routes and their history: what a table says as of each revision."""

from __future__ import annotations

from typing import Any

import pytest

from universal_registry.kernel.errors import Invalid
from universal_registry.log.change import Change, Op
from universal_registry.propagation.routing.route import Route, RouteHistory, RouteTable, full_address, parse_route
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.record import Record, encode_record
from universal_registry.registry.selector import parse_selector

CATALOGUE = load_catalogue()


def record(kind: str, name: str, revision: int, spec: dict[str, Any], **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "classification": CATALOGUE.kinds[kind].classifications[0].name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "generation": 1,
        "created_revision": revision,
        "created_at": "2026-03-01T12:00:00.000Z",
        "updated_at": "2026-03-01T12:00:00.000Z",
        "created_by": "uid:0",
        "updated_by": "uid:0",
        "fingerprint": "f",
        **changes,
    }
    return Record(kind=kind, name=name, revision=revision, spec=spec, **fields)


def policy(name: str, revision: int, propagation: Any, **changes: Any) -> Record:
    spec = {"propagation": propagation, **changes.pop("spec", {})}
    return record(
        "policy", name, revision, spec, **{"namespace": "system", "classification": "PropagationPolicy", **changes}
    )


def line(of: Record, op: Op = Op.PUT, seq: int = 0, revision: int | None = None) -> Change:
    return Change(
        revision=of.revision if revision is None else revision,
        seq=seq,
        op=op,
        kind=of.kind,
        namespace=of.namespace,
        name=of.name,
        uid=of.uid,
        generation=of.generation,
        body=encode_record(of),
        commitment="c",
        actor="uid:0",
        txn_id="t",
        at="2026-03-01T12:00:00.000Z",
    )


def test_a_route_is_read_in_both_forms_of_its_selector() -> None:
    for selector in ("kind=alias,name=g*", {"kinds": ["alias"], "names": ["g*"]}):
        route = parse_route(policy("r", 4, {"selector": selector, "targets": ["system/mine", "mine", "b"]}), CATALOGUE)
        assert route is not None
        assert route.selector == parse_selector("kind=alias,name=g*", CATALOGUE)
        assert (route.targets, route.mode, route.secrets_included) == (
            ("system/mine", "system/b"),
            "unidirectional",
            False,
        )


def test_a_selector_of_classes_is_indexed_by_their_kind() -> None:
    route = parse_route(policy("r", 4, {"selector": "class=ZshAlias", "targets": ["mine"]}), CATALOGUE)
    assert route is not None
    assert route.kinds == ("alias",)


@pytest.mark.parametrize(
    "other",
    [
        policy("r", 4, {"selector": "kind=alias", "targets": ["mine"]}, namespace="default"),
        policy("r", 4, {"selector": "kind=alias", "targets": ["mine"]}, classification="AccessPolicy"),
        policy("r", 4, {"selector": "kind=alias", "targets": ["mine"]}, spec={"enabled": False}),
        policy("r", 4, None),
    ],
)
def test_what_is_no_route(other: Record) -> None:
    assert parse_route(other, CATALOGUE) is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"selector": "kind=alias"}, "targets"),
        ({"selector": "kind=alias", "targets": []}, "targets"),
        ({"selector": "kind=alias", "targets": [7]}, "targets"),
        ({"selector": "kind=alais", "targets": ["mine"]}, "alias"),
        ({"selector": 7, "targets": ["mine"]}, "selector"),
        ({"targets": ["mine"], "mode": "broadcst"}, "mode 'broadcst' is none"),
        ({"targets": ["mine"], "pattern": "chain"}, "pattern 'chain' is none of unidirectional"),
        ({"mode": "multicast", "targets": []}, "targets"),
        ({"mode": "broadcast", "follow": "yes"}, "follow"),
        ({"mode": "broadcast", "targets": [], "exclude": "internal"}, "list of words"),
        ({"mode": "multicast", "pattern": "chain", "targets": ["mine"], "on_failure": "wait"}, "stop or skip"),
        ({"targets": ["mine"], "delivery": "latest"}, "not built yet"),
        ({"targets": ["mine"], "exclude": ["internal"]}, "for mode broadcast"),
        ({"targets": ["mine"], "secrets": "all"}, "redact or include"),
        ({"targets": ["mine"], "selectr": "kind=alias"}, "selectr"),
        ("kind=alias", "object"),
    ],
)
def test_a_route_that_cannot_be_followed_as_written_is_refused(body: Any, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_route(policy("r", 4, body), CATALOGUE)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        ({"targets": ["a"]}, "unidirectional"),
        ({"targets": ["a", "b"], "pattern": "fanout"}, "unidirectional"),
        ({"mode": "multicast", "targets": ["a", "b"]}, "multicast"),
        ({"mode": "multicast", "pattern": "fanout", "targets": ["a"]}, "fanout"),
        ({"mode": "multicast", "pattern": "chain", "targets": ["a", "b"]}, "chain"),
        ({"mode": "broadcast", "targets": []}, "broadcast"),
        ({"mode": "broadcast", "follow": True}, "broadcast"),
        ({"mode": "bidirectional", "targets": ["a"]}, "bidirectional"),
        ({"mode": "bidirectional", "pattern": "mesh", "targets": ["a", "b"]}, "mesh"),
    ],
)
def test_seven_names_in_two_words(body: dict[str, Any], mode: str) -> None:
    route = parse_route(policy("r", 4, {"selector": "kind=alias", **body}), CATALOGUE)
    assert route is not None
    assert route.mode == mode
    assert route.after is (mode == "chain")
    named = tuple(f"system/{name}" for name in body.get("targets", ()))
    assert (route.targets, route.peers) == (((), named) if mode in ("bidirectional", "mesh") else (named, ()))


def test_a_hop_of_a_chain_waits_for_all_before_it() -> None:
    body = {"mode": "multicast", "pattern": "chain", "targets": ["a", "b", "c"], "on_failure": "skip"}
    route = parse_route(policy("r", 4, body), CATALOGUE)
    assert route is not None
    assert [route.earlier(f"system/{name}") for name in "abcx"] == [
        (),
        ("system/a",),
        ("system/a", "system/b"),
        (),
    ]
    assert route.skips


def test_addresses() -> None:
    assert full_address("mine") == full_address("system/mine") == "system/mine"
    assert full_address("prod/mine") == "system/prod/mine"
    assert full_address("system/") == "system/system/"


def history(*steps: tuple[Record, Op]) -> RouteHistory:
    built = RouteHistory(CATALOGUE)
    for of, op in steps:
        built.add(line(of, op))
    return built


ALIASES = {"selector": "kind=alias", "targets": ["mine"]}


def names(table: RouteTable) -> list[str]:
    return [route.name for route in table.routes]


def test_the_table_as_of_each_revision() -> None:
    a4, b6 = policy("a", 4, ALIASES), policy("b", 6, {**ALIASES, "targets": ["mine", "late"]})
    a9 = policy("a", 9, {**ALIASES, "targets": ["moved"]})
    built = history((a4, Op.PUT), (b6, Op.PUT), (a9, Op.PUT))
    built.add(line(b6, Op.DELETE, revision=12))
    seen = [names(built.at(revision)) for revision in range(14)]
    assert seen == [[]] * 4 + [["a"]] * 2 + [["a", "b"]] * 6 + [["a"]] * 2
    assert built.at(8).by_uid["uid-a"].targets == ("system/mine",)
    assert built.at(9).by_uid["uid-a"].targets == ("system/moved",)
    assert names(built.current()) == ["a"]


def test_several_lines_of_one_revision_make_one_table() -> None:
    built = RouteHistory(CATALOGUE)
    built.add(line(policy("a", 4, ALIASES), seq=0))
    built.add(line(policy("b", 4, ALIASES), seq=1))
    assert (names(built.at(3)), names(built.at(4))) == ([], ["a", "b"])


def test_a_policy_that_stops_being_a_route_leaves_the_table() -> None:
    for stopped in (
        policy("a", 7, ALIASES, spec={"enabled": False}),
        policy("a", 7, ALIASES, classification="AccessPolicy"),
        policy("a", 7, {**ALIASES, "mode": "mesh"}),
    ):
        built = history((policy("a", 4, ALIASES), Op.PUT), (stopped, Op.PUT))
        assert (names(built.at(6)), names(built.at(7))) == (["a"], [])


def test_a_fault_is_kept_until_the_policy_is_mended_or_removed() -> None:
    bad = policy("a", 4, {**ALIASES, "mode": "mesh"})
    built = history((bad, Op.PUT))
    assert "mesh" in built.faults["a"]
    built.add(line(policy("a", 5, ALIASES)))
    assert (built.faults, names(built.current())) == ({}, ["a"])
    again = history((bad, Op.PUT), (bad, Op.DELETE))
    assert again.faults == {}


def test_other_lines_change_nothing() -> None:
    built = RouteHistory(CATALOGUE)
    alias = record("alias", "gs", 3, {"command": "git status"})
    assert not built.add(line(alias))
    assert not built.add(line(policy("a", 4, ALIASES), Op.EVENT))
    assert not built.add(line(policy("a", 4, ALIASES, namespace="default")))
    assert not built.add(line(policy("a", 4, ALIASES, classification="AccessPolicy")))
    assert built.add(line(policy("a", 5, ALIASES)))


def test_forgetting_keeps_what_can_still_be_asked_for() -> None:
    steps = [(policy("a", revision, {**ALIASES, "targets": [f"t{revision}"]}), Op.PUT) for revision in (4, 6, 9)]
    built = history(*steps)
    before = {revision: [route.targets for route in built.at(revision).routes] for revision in range(7, 12)}
    built.forget_before(7)
    assert {revision: [route.targets for route in built.at(revision).routes] for revision in range(7, 12)} == before
    built.add(line(policy("a", 11, {**ALIASES, "targets": ["t11"]})))
    assert built.at(10).by_uid["uid-a"].targets == ("system/t9",)


def test_secrets_travel_only_while_the_route_says_so() -> None:
    included = {**ALIASES, "secrets": "include"}
    built = history((policy("a", 4, ALIASES), Op.PUT))
    assert not built.secrets_allowed("uid-a")
    built.add(line(policy("a", 6, included)))
    assert built.secrets_allowed("uid-a")
    built.add(line(policy("a", 9, ALIASES)))
    assert not built.secrets_allowed("uid-a")
    assert not built.secrets_allowed("")


def make_route(name: str, terms: str, targets: tuple[str, ...] = ("mine",), **more: Any) -> Route:
    body = {"selector": terms, "targets": list(targets), **more}
    route = parse_route(policy(name, 2, body), CATALOGUE)
    assert route is not None
    return route


def test_candidates_are_a_superset_of_what_matches_in_order() -> None:
    terms = ["kind=alias", "kind=alias,name=gs", "kind=alias,name=g*", "name=gs", "class=ZshAlias", "kind=service", ""]
    routes = tuple(make_route(f"r{index}", each) for index, each in enumerate(terms))
    table = RouteTable((*routes, make_route("z", "kind=alias", secrets="include")))
    alias = record("alias", "gs", 3, {"command": "x"}, classification="ZshAlias")
    found = table.candidates("alias", "gs")
    matching = [route for route in table.routes if route.selector.matches(alias)]
    assert [route for route in found if route.selector.matches(alias)] == matching
    assert names(table)[0] == found[0].name == "z"
    assert "r1" not in [route.name for route in table.candidates("alias", "ll")]
    assert table.candidates("alias", "ll")
    assert RouteTable(routes[:2]).candidates("service", "gs") == ()


def test_names_with_wildcards_or_escapes() -> None:
    table = RouteTable((make_route("star", "name=a\\*b"), make_route("both", "name=x,name=y*")))
    assert [route.name for route in table.candidates("alias", "a*b")] == ["both", "star"]
    assert [route.name for route in table.candidates("alias", "yes")] == ["both"]
