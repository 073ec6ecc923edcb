from __future__ import annotations

from typing import Any

import pytest

from universal_registry.registry.record import Record
from universal_registry.registry.words import ENVELOPE
from universal_registry.storage.rows import record_of, row_of

PLAIN: dict[str, Any] = {
    "kind": "service", "namespace": "default", "name": "pay", "uid": "u1", "classification": "AppService",
    "spec": {"port": 8443}, "generation": 2, "revision": 7, "created_revision": 5,
    "created_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-02T00:00:00.000Z",
    "created_by": "uid:0", "updated_by": "uid:1", "fingerprint": "f",
}  # fmt: skip
FULL = {
    **PLAIN, "title": "Pay", "description": "takes money", "labels": {"tier": "backend"}, "annotations": {"a": "b"},
    "managers": {"m": ["spec.port"]}, "lifecycle": "draft", "health": {"status": "passing"},
    "expires_at": "2030-01-01T00:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize("fields", [PLAIN, FULL, {**PLAIN, "spec": {}}])
def test_a_record_is_the_same_after_its_row(fields: dict[str, Any]) -> None:
    record = Record(**fields)
    assert record_of("service", row_of(record)) == record


def test_what_plain_sql_left_out_has_its_default() -> None:
    row = list(row_of(Record(**FULL)))
    for name in ("title", "labels", "annotations", "managers"):
        row[ENVELOPE.index(name)] = None
    assert record_of("service", tuple(row)) == Record(**{**FULL, "title": "", "labels": {}, "annotations": {},
                                                         "managers": {}})  # fmt: skip


def test_records_share_no_part_that_is_empty() -> None:
    row = row_of(Record(**PLAIN))
    one, other = record_of("service", row), record_of("service", row)
    assert one.labels == {}
    assert one.labels is not other.labels
