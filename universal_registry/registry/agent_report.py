"""What an agent says runs on its machine: a record, so that it is kept, watched and propagated as any other. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector

KIND, CLASSIFICATION = "endpoint", "AgentEndpoint"
NAMESPACE = "agents"
"""Where reports stand: not in `system`, so that a machine's token needs no more than the scope `write`."""
REPORTS = Selector(kinds=(KIND,), namespaces=(NAMESPACE,), classifications=(CLASSIFICATION,))
_ON_A_HOST = frozenset({"config_file", "path", "symlink"})
MOST_TOLD = 200
"""Records that do not run, in one report; of further ones only the number is told."""


class NotRunning(msgspec.Struct, frozen=True, kw_only=True):
    """A record that does not run as it is. `state`: received (it came, and did not do) or held. `revision`: the one
    that this is about; `running`: the one that runs meanwhile, or None."""

    record: str
    state: str
    revision: int
    why: str
    running: int | None = None


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that `selectors` (their JSON form) select up to revision `at` runs, but for `behind`, and for `more` that it
    has no room for."""

    at: int
    selectors: list[dict[str, Any]]
    behind: list[NotRunning] = []
    more: int = 0


def is_for(kind: str, spec: dict[str, Any], machine: str) -> bool:
    """Whether a record that is selected is for that machine: of some kinds it may say that it is on another host."""
    return kind not in _ON_A_HOST or spec.get("host") in (None, "", machine)


def report_spec(report: AgentReport) -> dict[str, Any]:
    """The spec of the record."""
    return {"agent": msgspec.to_builtins(report)}


def parse_report(record: Record) -> AgentReport | None:
    """What a record reports; None when it cannot be understood, for anybody who writes may have written it."""
    try:
        return msgspec.convert(record.spec.get("agent"), AgentReport)
    except msgspec.ValidationError:
        return None
