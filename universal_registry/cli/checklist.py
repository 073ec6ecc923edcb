"""`ureg checklist`: what is done before a registry is relied upon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from universal_registry.cli.command import Example, command, output_option
from universal_registry.cli.doctor import facts_of
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.cli.session import loaded_settings, session

if TYPE_CHECKING:
    from universal_registry.care.checklist import Evidence
    from universal_registry.environment import Loaded

_SHAPE = Shape(
    "lines",
    (
        Column("LINE", "line", whole=True),
        Column("STATE", "state"),
        Column("EVIDENCE", "evidence"),
        Column("COMMAND", "command"),
    ),
    lambda item: str(item["line"]),
)
_TUNED = ("retry.circuit_breaker_threshold", "retry.circuit_breaker_timeout_seconds")
_ROTATES = (Path("/etc/logrotate.d/universal-registry"), Path("/etc/newsyslog.d/universal-registry.conf"))
_ENABLES = (
    Path("/etc/systemd/system/multi-user.target.wants/universal-registry.service"),
    Path("/Library/LaunchDaemons/com.universal.registry.plist"),
)


@command("checklist", Example("ureg checklist"), Example("ureg checklist -o json"))
@output_option()
def checklist(output: str) -> int:
    """The ten things to do before a registry is relied upon: each ok, not yet or failed, what shows it, and the
    command that makes it ok.

    Exits with 0 when all are ok, 10 when some are not yet, 1 when one has failed.
    """
    import msgspec

    from universal_registry.care.checklist import Done
    from universal_registry.care.checklist import checklist as lines

    found = lines(_evidence(loaded_settings()))
    emit([msgspec.to_builtins(each) for each in found], output, _SHAPE)
    states = {each.state for each in found}
    return 1 if Done.FAILED in states else 10 if Done.NOT_YET in states else 0


def _evidence(loaded: Loaded) -> Evidence:
    from universal_registry.care.checklist import Evidence

    settings, facts = loaded.settings, facts_of(loaded)
    port = settings.listen.rpartition(":")[2]
    found = Evidence(facts=facts, tls=settings.tls_cert is not None, listens_on=int(port or 0))
    found.service_enabled = any(path.exists() for path in _ENABLES)
    found.rotated = next((f"{path} is there" for path in _ROTATES if path.exists()), "")
    origins = ((name, loaded.origins.get(name, "default")) for name in _TUNED)
    found.tuned = tuple(f"{name} by {origin}" for name, origin in origins if origin != "default")
    if facts.initialised and not facts.silent:
        with session() as asked:
            found.tokens = asked.read("/v1/-/tokens")["items"]
    return found
