"""The routes of writes of many records, and of going back: a part of the one table (`routes.py`)."""

from __future__ import annotations

from universal_registry.api import handlers_apply_sets as sets
from universal_registry.api import handlers_records as records
from universal_registry.api import handlers_reverting as reverting
from universal_registry.api.auth import Scope
from universal_registry.api.context import BULK_LIMITS
from universal_registry.api.params import MESSAGE, MODE, STRICT, Param
from universal_registry.api.route import Route

_BULK = BULK_LIMITS.body

BULK_ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/batch", records.batch, Scope.WRITE, "Many operations, one revision, all or nothing",
        body=records.BatchBody, answer="batch", body_limit=_BULK, keyed=True,
    ),
    Route(
        "POST", "/v1/-/apply", records.apply, Scope.WRITE, "Make records what documents say, all or nothing",
        (MODE, MESSAGE, STRICT),
        "records", "batch", _BULK, keyed=True,
    ),
    Route(
        "POST", "/v1/-/apply-sets/{name}", sets.apply_as_set, Scope.WRITE, "The same, and remember them as a set",
        (
            MODE, MESSAGE, STRICT,
            Param("prune", "delete what the set had made and the documents do not mention", "boolean"),
            Param("dry_run", "only say what would change, as `/v1/-/rehearse` does", "boolean"),
        ),
        "records", "batch", _BULK, keyed=True,
    ),
    Route(
        "POST", "/v1/-/rehearse", reverting.rehearsal, Scope.WRITE, "What a batch would change; nothing is stored",
        body=records.BatchBody, body_limit=_BULK,
    ),
    Route(
        "POST", "/v1/-/undo", reverting.undo_revision, Scope.WRITE, "Put all records of a revision back as they were",
        body=reverting.UndoBody, answer="batch", keyed=True,
    ),
    Route(
        "POST", "/v1/-/rollback", reverting.roll_back, Scope.WRITE, "Make a record what it was, or bring it back",
        body=reverting.RollbackBody, answer="batch", keyed=True,
    ),
)  # fmt: skip
