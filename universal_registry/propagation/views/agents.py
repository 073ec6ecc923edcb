"""Arrival at machines whose agent reports what runs there. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.kernel.errors import RegistryError
from universal_registry.log.change import Op
from universal_registry.registry.agent_report import NAMESPACE, REPORTS, AgentReport, NotRunning, is_for, parse_report
from universal_registry.registry.record import Record
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import RegistryService

_HISTORY = 50
Reports = Sequence[tuple[str, AgentReport]]


async def agent_reports(service: RegistryService) -> Reports:
    """The reports that there are, by the name of the machine."""
    found: list[tuple[str, AgentReport]] = []
    async for page in service.pages(REPORTS):
        read = ((record.name, parse_report(record)) for record in page.records)
        found += [(name, report) for name, report in read if report is not None]
    return found


async def at_agents(service: RegistryService, reports: Reports, record: Record) -> list[dict[str, Any]]:
    """As `arrivals`, an entry per machine that follows the record: `target` is `agents/NAME`; `state` is running,
    received (it came, and did not do: `arrived_revision` runs meanwhile), held or waiting."""
    return [
        {
            "target": f"{NAMESPACE}/{name}",
            "wanted_revision": record.revision,
            "next_at": None,
            "route": None,
            **await _stands(service, report, record),
        }
        for name, report in reports
        if is_for(record.kind, record.spec, name) and _follows(service, report, record)
    ]


def _follows(service: RegistryService, report: AgentReport, record: Record) -> bool:
    for selector in report.selectors:
        try:
            if parse_selector(selector, service.catalogue).matches(record):
                return True
        except RegistryError:
            continue  # whoever may write may have written it
    return False


async def _stands(service: RegistryService, report: AgentReport, record: Record) -> dict[str, Any]:
    entry = f"{record.kind}/{record.namespace}/{record.name}"
    behind = next((each for each in report.behind if each.record == entry), None)
    if behind is not None and behind.revision >= record.revision:
        return _state(behind.state, behind.running, _why(behind))
    if behind is not None:
        return _state("waiting", behind.running, "the machine has not reported it yet")
    if record.revision > report.at:
        return _state("waiting", await _newest(service, record, report.at), "the machine has not reported it yet")
    if report.more:
        return _state("received", None, "more does not run there than a report has room for: see the machine itself")
    return _state("running", record.revision, "")


def _why(behind: NotRunning) -> str:
    return behind.why if behind.running is None else f"{behind.why}; still on r{behind.running}"


def _state(state: str, arrived: int | None, reason: str) -> dict[str, Any]:
    return {"state": state, "arrived_revision": arrived, "reason": reason}


async def _newest(service: RegistryService, record: Record, upto: int) -> int | None:
    """The newest revision of the record up to there: it runs until the next one is reported."""
    lines = await service.log.history(record.key, _HISTORY)
    last = next((line for line in lines if line.revision <= upto), None)
    return last.revision if last is not None and last.op is Op.PUT else None
