"""Who is meant by a broadcast, at each revision; and why a record is not selected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.propagation.engine.session_steps import concluded
from universal_registry.propagation.lanes.lane import Session
from universal_registry.propagation.routing.audience import Audience, Facts, Members, excluding, own_names
from universal_registry.propagation.routing.modes import MODES, SHAPES, check_targets, mode_named, mode_of
from universal_registry.propagation.verbs.propagate import read_ask
from universal_registry.propagation.views.explain import mismatch
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.record import Record
from universal_registry.registry.selector import parse_selector

CATALOGUE = load_catalogue()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def facts(name: str = "web-1", environment: str = "staging", **labels: str) -> Facts:
    return Facts(namespace="system", name=name, environment=environment, labels=tuple(sorted(labels.items())))


@pytest.mark.parametrize(
    ("word", "out"),
    [
        ("web-1", True),
        ("web-*", True),
        ("web-?", True),
        ("system/web-1", True),
        ("system/*", True),
        ("system", True),
        ("staging", True),
        ("zone", True),
        ("eu", True),
        ("zone=eu", True),
        ("zone=us", False),
        ("web", False),
        ("s*", False),
        ("default/*", False),
        ("production", False),
        ("*-1", True),
        (r"web-\*", False),
    ],
)
def test_a_word_leaves_out_by_name_glob_namespace_environment_or_label(word: str, out: bool) -> None:
    assert bool(excluding([word], facts(zone="eu"))) is out


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("hub", ("hub",)),
        ("alias/hub", ("alias/hub", "hub")),
        ("@scope/pkg", ("@scope/pkg", "pkg")),
        ("kind=alias", ()),
        ("", ()),
    ],
)
def test_the_names_that_a_source_itself_would_have(source: str, names: tuple[str, ...]) -> None:
    assert own_names(source) == names


def test_an_audience_is_parted_with_reasons() -> None:
    audience = Audience(exclude=("web-*", "nobody"), itself=("hub",))
    targets = {f"system/{name}": facts(name) for name in ("web-1", "hub", "mine")}
    assert audience.parted(targets) == (
        ("system/mine",),
        {"system/hub": "the source itself", "system/web-1": "web-*"},
    )
    assert audience.unmatched(targets.values()) == ["nobody"]


def test_members_are_as_they_were_at_each_revision() -> None:
    members, audience = Members(), Audience(exclude=("internal",))
    address = "system/web-1"
    assert members.set(address, 5, facts())
    assert not members.set(address, 6, facts()), "no news"
    assert members.set(address, 8, facts(zone="internal"))
    assert members.set(address, 11, None)
    assert members.set(address, 11, facts()), "of one revision the last word counts"
    assert members.set(address, 20, None)
    meant = [revision for revision in range(25) if members.includes(audience, address, revision)]
    assert meant == [5, 6, 7, *range(11, 20)]
    assert [members.meant(audience, revision) for revision in (4, 5, 8, 19, 20)] == [[], [address], [], [address], []]
    assert members.at("system/never", 9) is None


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "classification": "ShellAlias",
        "namespace": "default",
        "uid": "u",
        "generation": 1,
        "revision": 3,
        "created_revision": 3,
        "created_at": "",
        "updated_at": "",
        "created_by": "",
        "updated_by": "",
        "fingerprint": "",
        "spec": {"command": "git status"},
    }
    return Record(**{"kind": "alias", "name": "gs", **fields, **changes})


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ("kind=alias", ""),
        ("kind=service", "its kind is alias, the route asks for service"),
        ("kind=alias,name=x*", "its name is gs, the route asks for x*"),
        ("kind=alias,namespace=prod", "its namespace is default, not prod"),
        ("kind=alias,labels.tier=gold", "its labels are none, the route asks for tier=gold"),
        ("kind=alias,spec.command=ls", "its spec is what it is, the route asks for spec.command=ls"),
    ],
)
def test_why_a_selector_leaves_a_record_out(terms: str, says: str) -> None:
    assert mismatch(parse_selector(terms, CATALOGUE), record()) == says


def test_a_refused_label_is_named() -> None:
    selector = parse_selector("kind=alias,!labels.old", CATALOGUE)
    assert mismatch(selector, record(labels={"old": "1"})) == "its labels are old=1, the route asks for not old"


def test_system_is_meant_only_where_it_is_named() -> None:
    assert "only where it is named" in mismatch(parse_selector("name=*", CATALOGUE), record(namespace="system"))


# --- modes ----------------------------------------------------------------------------------------------------------


def test_every_mode_has_words_of_its_own() -> None:
    words = [(shape.mode, shape.pattern) for shape in SHAPES.values()]
    assert len(set(words)) == len(MODES) == 7
    for name, shape in SHAPES.items():
        assert mode_of({"mode": shape.mode, "pattern": shape.pattern}) == name
    with pytest.raises(Invalid):
        mode_of({"mode": "broadcast", "pattern": "chain"})


def test_names_of_modes() -> None:
    assert mode_named("chaining") == "chain"
    with pytest.raises(UsageError, match="did you mean 'multicast'"):
        mode_named("multicst")


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_takes_as_many_targets_as_it_takes(mode: str) -> None:
    shape = SHAPES[mode]
    fits = [count for count in range(40) if _fits(mode, count)]
    assert fits == list(range(shape.least, 40 if shape.most is None else shape.most + 1))


def _fits(mode: str, count: int) -> bool:
    try:
        check_targets(mode, count)
    except UsageError:
        return False
    return True


def test_a_mesh_means_everything_unless_it_says_what() -> None:
    assert read_ask("mesh", None, ["a", "b"]).source == "name=*"
    with pytest.raises(UsageError, match="no source"):
        read_ask("multicast", None, ["a"])


# --- the end of a session -------------------------------------------------------------------------------------------


def one_shot(state: str = "planned", reason: str = "", deadline: datetime | None = None) -> Session:
    return Session(
        session_id="s",
        mode="multicast",
        source="hub",
        targets=("system/a", "system/b"),
        standing=False,
        state=state,
        revision=3,
        created_at=NOW,
        last_activity=NOW,
        reason=reason,
        deadline=deadline,
    )


@pytest.mark.parametrize(
    ("seconds", "after"), [(0.0, "planned"), (0.9, "planned"), (1.0, "running"), (-60.0, "running")]
)
def test_only_a_session_that_takes_a_while_is_said_to_run(seconds: float, after: str) -> None:
    """What is over at once needs no step in between; a clock that goes back keeps no session from running."""
    found = concluded(one_shot(), ["pending", "executed"], NOW + timedelta(seconds=seconds))
    assert found.state == after


@pytest.mark.parametrize(
    ("before", "statuses", "after"),
    [
        ("planned", ["pending", "executed"], "running"),
        ("running", ["pending", "executed"], "running"),
        ("running", ["executed", "executed"], "succeeded"),
        ("paused", ["retry", "executed"], "paused"),
        ("paused", ["executed", "executed"], "succeeded"),
        ("running", ["failed", "executed"], "partial"),
        ("running", ["failed", "failed"], "failed"),
        ("running", ["cancelled", "cancelled"], "cancelled"),
        ("draining", ["pending", "cancelled"], "draining"),
        ("draining", ["executed", "cancelled"], "cancelled"),
        ("draining", ["executed", "executed"], "succeeded"),
    ],
)
def test_how_a_session_goes_on(before: str, statuses: list[str], after: str) -> None:
    found = concluded(one_shot(before, "cancelled by ann"), statuses, NOW + timedelta(seconds=1))
    assert found.state == after
    if after != before:
        assert found.reason


def test_a_deadline_drains_and_expires() -> None:
    late = one_shot("running", deadline=NOW)
    draining = concluded(late, ["pending", "executed"], NOW)
    assert draining.state == "draining"
    assert concluded(draining, ["cancelled", "executed"], NOW).state == "expired"
    early = one_shot("running", deadline=NOW + timedelta(seconds=1))
    assert concluded(early, ["pending", "executed"], NOW) is early
