"""Filters of routes: which changes of the selected records are sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_propagation_render import line, record
from universal_registry.kernel.errors import Invalid
from universal_registry.log.change import Op
from universal_registry.propagation.routing.route_filter import Filter, parse_filter


def takes(text: str, op: Op = Op.PUT, **changes: Any) -> bool:
    spec = {"port": 8443, "tags": ["a", "b"], "host": {"name": "h5"}, "on": True, "ratio": 0.5}
    of = record("service", "pay", spec, labels={"tier.x": "backend"}, generation=2)
    fields = {"changed_fields": ("spec.port", "labels.tier.x"), "message": "a, b", **changes}
    return parse_filter(text).matches(line(of, op, **fields), of)


@pytest.mark.parametrize(
    "text",
    [
        "", "verb=updated", "verb!=deleted", "changed=spec.port", "changed=spec.*", "actor=uid:*", "message=a\\, b",
        "spec.port=8443", "spec.port>=8443", "spec.port<9000", "spec.port > 1", "spec.ratio<=0.5", "spec.tags=b",
        "spec.host.name=h?", "spec.on=true", "labels.tier.x=backend", "labels.nope!=x", "spec.nope!=1",
        "classification=ZshAlias", "verb=updated,changed=spec.port,spec.port>=8000",
    ],
)  # fmt: skip
def test_what_holds(text: str) -> None:
    assert takes(text)


@pytest.mark.parametrize(
    "text",
    [
        "verb=created", "verb!=updated", "changed=spec.host", "spec.port=8444", "spec.port<8443", "spec.port!=8443",
        "spec.tags!=a", "spec.tags=c", "spec.host=h5", "spec.on=1", "spec.on>0", "spec.nope=x", "spec.nope<1",
        "labels.tier=backend", "spec.host.name>1", "verb=updated,spec.port=1",
    ],
)  # fmt: skip
def test_what_does_not_hold(text: str) -> None:
    assert not takes(text)


def test_a_deletion_is_judged_by_the_record_as_it_last_was() -> None:
    assert takes("verb=deleted,spec.port=8443", Op.DELETE)


def test_a_secret_equals_nothing() -> None:
    of = record("secret", "db", {"value": {"$sealed": "12345678:token", "$mac": "00"}})
    assert not parse_filter("spec.value=*").matches(line(of), of)
    assert not parse_filter("spec.value.$mac=*").matches(line(of), of)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vreb=updated", "did you mean verb"),
        ("spec=x", "has no"),
        ("verb.x=updated", "has no"),
        ("verb=changed", "created, updated, deleted"),
        ("verb>1", "created, updated, deleted"),
        ("spec.port>=high", "compares numbers"),
        ("spec.port>=nan", "compares numbers"),
        ("port", "cannot be read"),
        ("=x", "cannot be read"),
        (",".join(["verb=updated"] * 33), "at most 32"),
    ],
)
def test_what_could_never_hold_is_refused(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_filter(text)


def test_the_empty_filter_is_the_one_of_a_route_without() -> None:
    assert parse_filter("") == Filter()
