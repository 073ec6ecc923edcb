"""Each line of `ureg checklist`, when it is ok and when it is not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from universal_registry.care.checklist import LINES, Done, Evidence, checklist
from universal_registry.care.checks.finding import Facts

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AT = "2026-02-20T00:00:00Z"
TARGET = {"target": "system/mine", "validated_at": AT, "lane": {"breaker": "closed", "delivered": 3}}
FACTS: dict[str, Any] = {
    "now": NOW,
    "answers": True,
    "backup_folder": "/b",
    "backup_age": 60.0,
    "marks": {"key_backup": {"at": AT, "kids": ["aa"]}, "drill": {"at": AT, "keys": True}},
    "keys": {"keys": [{"kid": "aa"}]},
    "status": {"targets": [TARGET]},
}
WELL: dict[str, Any] = {
    "service_enabled": True,
    "rotated": "by logrotate",
    "tokens": [{"name": "prometheus", "scopes": ["read"]}],
    "tuned": ("threshold by config.py:3",),
    "listens_on": 443,
    "tls": True,
}
CASES: list[tuple[int, dict[str, Any], dict[str, Any], Done]] = [
    (0, {}, {"marks": {}}, Done.NOT_YET),
    (0, {}, {"key_trouble": "missing"}, Done.FAILED),
    (1, {}, {"backup_folder": ""}, Done.NOT_YET),
    (1, {}, {"backup_age": 1e6}, Done.FAILED),
    (2, {"service_enabled": False}, {}, Done.NOT_YET),
    (2, {}, {"answers": False}, Done.FAILED),
    (3, {"rotated": ""}, {}, Done.NOT_YET),
    (4, {"tokens": [{"name": "ci", "scopes": ["admin"]}]}, {}, Done.NOT_YET),
    (5, {"tuned": ()}, {}, Done.NOT_YET),
    (6, {}, {"status": {"targets": [{**TARGET, "validated_at": None}]}}, Done.NOT_YET),
    (7, {}, {"status": {"targets": [{**TARGET, "lane": {"breaker": "closed", "delivered": 0}}]}}, Done.NOT_YET),
    (7, {}, {"status": {"targets": [{**TARGET, "lane": {"breaker": "open", "delivered": 3}}]}}, Done.FAILED),
    (8, {}, {"marks": {"drill": {"at": AT, "keys": False}}}, Done.NOT_YET),
    (9, {"listens_on": 8080}, {}, Done.NOT_YET),
    (9, {"tls": False}, {}, Done.NOT_YET),
]


def test_all_ten_are_ok_when_everything_is_done() -> None:
    assert len(LINES) == 10
    assert {each.state for each in checklist(Evidence(facts=Facts(**FACTS), **WELL))} == {Done.OK}
    assert {case[0] for case in CASES} == set(range(10))


@pytest.mark.parametrize(("place", "evidence", "facts", "state"), CASES)
def test_a_line_that_is_not_ok_says_the_command(
    place: int, evidence: dict[str, Any], facts: dict[str, Any], state: Done
) -> None:
    found = checklist(Evidence(facts=Facts(**{**FACTS, **facts}), **{**WELL, **evidence}))[place]
    assert found.state == state
    assert found.evidence
    assert found.command
