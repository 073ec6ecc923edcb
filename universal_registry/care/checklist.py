"""The ten lines of the production checklist, each with what shows it and the command that makes it so. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from universal_registry.care.checks import stores
from universal_registry.care.checks.finding import Facts, Said, State

_DRILL_DAYS = 90


class Done(StrEnum):
    """How far a line is."""

    OK = "ok"
    NOT_YET = "not yet"
    FAILED = "failed"


class Evidence(msgspec.Struct, kw_only=True):
    """What the lines look at. `rotated`: what rotates the log. `tokens`: as `ureg token ls`. `tuned`: which
    thresholds of the breaker somebody has set, and where."""

    facts: Facts
    service_enabled: bool = False
    rotated: str = ""
    tokens: list[dict[str, Any]] = []
    tuned: tuple[str, ...] = ()
    listens_on: int = 0
    tls: bool = False


class Line(msgspec.Struct, frozen=True):
    """A line of the checklist. `command`: what makes it ok; empty when it is."""

    line: str
    state: Done
    evidence: str
    command: str = ""


_Told = tuple[Done, str, str]


def checklist(found: Evidence) -> list[Line]:
    """All ten, in the order in which they are to be done."""
    return [Line(name, *look(found)) for name, look in LINES]


def _of(said: Said) -> _Told:
    state = {State.OK: Done.OK, State.WARN: Done.NOT_YET, State.FAIL: Done.FAILED}[said.state]
    return state, said.why, said.command


def _key(found: Evidence) -> _Told:
    trouble = stores.key(found.facts)
    return _of(trouble if trouble.state is State.FAIL else stores.key_backup(found.facts))


def _backups(found: Evidence) -> _Told:
    facts = found.facts
    if not facts.backup_folder:
        return Done.NOT_YET, "no backups are made by the clock", "REGISTRY_BACKUP_FOLDER=/var/backups/ureg ureg up"
    if facts.backup_age is None:
        return Done.NOT_YET, f"none is in {facts.backup_folder} yet", "ureg up"
    state, why, command = _of(stores.backup(facts))
    return (Done.FAILED if state is Done.NOT_YET else state), why, command


def _service(found: Evidence) -> _Told:
    if not found.service_enabled:
        return Done.NOT_YET, "no service of the system starts it", "ureg service install"
    if not found.facts.answers:
        return Done.FAILED, "the service is enabled, and no daemon answers", "ureg service status"
    return Done.OK, "enabled, and it answers", ""


def _rotation(found: Evidence) -> _Told:
    if found.rotated:
        return Done.OK, found.rotated, ""
    return Done.NOT_YET, "nothing rotates logs/registry.log", "ureg service install"


def _metrics(found: Evidence) -> _Told:
    readers = [each["name"] for each in found.tokens if each["scopes"] == ["read"]]
    if readers:
        return Done.OK, f"token {readers[0]} may read /metrics, and nothing else", ""
    return Done.NOT_YET, "no token that can only read", "ureg token add prometheus --scope read"


def _breaker(found: Evidence) -> _Told:
    if found.tuned:
        return Done.OK, "; ".join(found.tuned), ""
    what = "5 failures, 60 s: the defaults, which nobody has confirmed"
    return Done.NOT_YET, what, "set RETRY_CONFIG in config.py, see ureg config show --origin"


def _endpoints(found: Evidence) -> _Told:
    targets = found.facts.status.get("targets", [])
    if not targets:
        return Done.NOT_YET, "there is no target", "ureg target add NAME URL"
    open_ = [each for each in targets if not each.get("validated_at")]
    if not open_:
        return Done.OK, f"{len(targets)} have answered their challenge", ""
    name = str(open_[0]["target"]).removeprefix("system/")
    return Done.NOT_YET, f"{len(open_)} of {len(targets)} have not shown whose they are", f"ureg target validate {name}"


def _targets(found: Evidence) -> _Told:
    targets = found.facts.status.get("targets", [])
    lanes = [(str(each["target"]).removeprefix("system/"), each.get("lane") or {}) for each in targets]
    if not lanes:
        return Done.NOT_YET, "there is no target", "ureg target add NAME URL"
    for name, lane in lanes:
        if lane.get("breaker") == "open":
            return Done.FAILED, f"{name} does not take what is sent to it", f"ureg target test {name}"
    never = [name for name, lane in lanes if not lane.get("delivered")]
    if never:
        return Done.NOT_YET, f"{never[0]} has never got anything", f"ureg target test {never[0]}"
    return Done.OK, f"{len(lanes)} have got what was sent", ""


def _drill(found: Evidence) -> _Told:
    done, command = found.facts.marks.get("drill"), "ureg drill --keys FILE"
    if done is None:
        return Done.NOT_YET, "it was never tried", command
    if not done.get("keys"):
        return Done.NOT_YET, f"on {done['at']}, without the backup of the keys", command
    days = (found.facts.now - datetime.fromisoformat(done["at"])).days
    if days > _DRILL_DAYS:
        return Done.NOT_YET, f"the last one was {days} days ago", command
    return Done.OK, f"restored, compared and rotated with the backup of the keys, {days} days ago", ""


def _wss(found: Evidence) -> _Told:
    if not found.tls:
        return Done.NOT_YET, "streams are not on TLS", "set REGISTRY_TLS_CERT and REGISTRY_TLS_KEY"
    if found.listens_on != 443:
        return Done.NOT_YET, f"TLS is on port {found.listens_on}, not 443", "REGISTRY_LISTEN=0.0.0.0:443"
    if not found.facts.answers:
        return Done.FAILED, "no daemon answers", "ureg up"
    return Done.OK, "wss on 443 (that the firewall lets it through is seen from outside alone)", ""


LINES: tuple[tuple[str, Callable[[Evidence], _Told]], ...] = (
    ("the key is backed up", _key),
    ("backups are made by the clock", _backups),
    ("a service starts it", _service),
    ("the log is rotated", _rotation),
    ("metrics are read by a monitor", _metrics),
    ("the breaker is tuned", _breaker),
    ("receivers have shown whose they are", _endpoints),
    ("targets have got something", _targets),
    ("a disaster was tried out", _drill),
    ("streams are on TLS, port 443", _wss),
)
