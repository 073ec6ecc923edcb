"""What a scan writes, against what it wrote before."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from universal_registry.cli.scan_plan import is_secret_only, make_plan, merge_patch, vanished
from universal_registry.scan import Found

VALUES = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=2), VALUES, max_size=4)


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386, written down independently."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@given(OBJECTS, OBJECTS)
def test_the_patch_leads_from_one_to_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = merge_patch(old, new)
    assert merged(old, patch or {}) == new


@given(OBJECTS)
def test_the_same_needs_no_patch(value: dict[str, Any]) -> None:
    assert merge_patch(value, dict(value)) is None


def test_one_is_not_true() -> None:
    assert merge_patch({"a": 1}, {"a": True}) == {"a": True}


def found(name: str, reader: str = "aliases", **spec: Any) -> Found:
    return Found("alias", name, "ZshAlias", spec, {"scan": reader}, "")


def record(name: str, reader: str = "aliases", **spec: Any) -> dict[str, Any]:
    return {"kind": "alias", "name": name, "classification": "ZshAlias", "labels": {"scan": reader}, "spec": spec}


def test_new_changed_and_unchanged() -> None:
    known = {("alias", "same"): record("same", command="a"), ("alias", "other"): record("other", command="a", line=3)}
    plan = make_plan([found("new", command="n"), found("same", command="a"), found("other", command="b")], known, "h")
    assert plan.unchanged == {("aliases", "alias"): 1}
    assert [operation for operation, _ in plan.operations] == [
        {
            "op": "merge",
            "kind": "alias",
            "namespace": "h",
            "name": "new",
            "labels": {"scan": "aliases"},
            "spec": {"command": "n"},
            "classification": "ZshAlias",
        },
        {"op": "merge", "kind": "alias", "namespace": "h", "name": "other", "spec": {"command": "b", "line": None}},
    ]


def test_what_people_added_stays() -> None:
    kept = record("gs", command="a")
    kept["labels"]["mine"] = "yes"
    kept["description"] = "my note"
    assert make_plan([found("gs", command="a")], {("alias", "gs"): kept}, "h").operations == []


def test_a_kept_secret_is_sent_again_but_counts_as_known() -> None:
    old = record("k", secret={"$secret": "kept"})
    [(operation, _)] = make_plan([found("k", secret="hush")], {("alias", "k"): old}, "h").operations
    assert operation["spec"] == {"secret": "hush"}
    assert is_secret_only(operation, old)
    assert not is_secret_only({**operation, "labels": {}}, old)
    assert not is_secret_only(operation, None)


def test_vanished_are_those_of_the_readers_that_looked() -> None:
    known = {
        ("alias", "gone"): record("gone"),
        ("alias", "here"): record("here"),
        ("alias", "foreign"): record("foreign", "dpkg"),
        ("alias", "mine"): {**record("mine"), "labels": {}},
        ("repository", "/src/a"): {**record("/src/a", "git"), "kind": "repository"},
        ("repository", "/srcb"): {**record("/srcb", "git"), "kind": "repository"},
    }

    def gone(folders: list[str]) -> list[str]:
        return [each["name"] for each in vanished(known, {("alias", "here")}, ["aliases", "git"], folders, "/home/me")]

    assert gone([]) == ["gone"]
    assert gone(["/src"]) == ["gone", "/src/a"]


def test_what_was_found_in_another_home_has_not_vanished() -> None:
    known = {}
    for home in (None, "/home/me", "/home/other"):
        each = record(f"of {home}")
        each["labels"] |= {"scan.home": home} if home else {}
        known["alias", each["name"]] = each
    assert [each["name"] for each in vanished(known, (), ["aliases"], (), "/home/me")] == ["of None", "of /home/me"]
