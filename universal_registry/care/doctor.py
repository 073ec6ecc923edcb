"""All checks, and the repairs that are safe without asking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from universal_registry.care.checks import daemon, home, sending, stores
from universal_registry.care.checks.finding import Check, Facts, Finding, State

CHECKS: tuple[Check, ...] = (*home.CHECKS, *daemon.CHECKS, *stores.CHECKS, *sending.CHECKS)
_DATABASES = (".universal_registry.db", ".registry_propagation.db")


def examine(facts: Facts) -> list[Finding]:
    """What each check says, in order. Pure."""
    said = ((check, check.said(facts)) for check in CHECKS)
    return [Finding(check.group, check.name, each.state, each.why, each.command) for check, each in said]


def fixes(facts: Facts) -> list[str]:
    """The names of the repairs that would help. Pure."""
    return [said.fix for check in CHECKS if (said := check.said(facts)).fix]


def exit_code(findings: Sequence[Finding]) -> int:
    """0: all is well; 10: warnings; 1: something failed."""
    states = {each.state for each in findings}
    return 1 if State.FAIL in states else 10 if State.WARN in states else 0


def repairs(folder: Path, migrate: Callable[[], None]) -> dict[str, Callable[[], None]]:
    """By name. None of them removes anything that is needed, or changes what is stored."""
    return {
        "private": lambda: _close(folder, list(home.PRIVATE), 0o077),
        "databases": lambda: _close(folder, list(_DATABASES), 0o007),
        "address": lambda: (folder / "run" / "address").unlink(missing_ok=True),
        "migrate": migrate,
    }


def _close(folder: Path, names: Sequence[str], bits: int) -> None:
    for name in names:
        if (path := folder / name).exists():
            path.chmod(path.stat().st_mode & 0o777 & ~bits)
