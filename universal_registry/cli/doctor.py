"""`ureg doctor`: what is not as it should be, why, and the one right command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from universal_registry.cli.command import Example, command, output_option
from universal_registry.cli.output import TABLES, Column, Shape, emit, told_in_words
from universal_registry.cli.session import forgiving_settings, note, session

if TYPE_CHECKING:
    from universal_registry.care.checks.finding import Facts
    from universal_registry.environment import Loaded
    from universal_registry.kernel.errors import SettingError

_SHAPE = Shape(
    "checks",
    (
        Column("CHECK", lambda item: f"{item['group']}/{item['name']}", whole=True),
        Column("STATE", "state"),
        Column("WHY", "why"),
        Column("COMMAND", "command"),
    ),
    lambda item: f"{item['group']}/{item['name']}",
)


@command(
    "doctor",
    Example("ureg doctor", "only what is not well"),
    Example("ureg doctor --all -o json"),
    Example("ureg doctor --fix", "what can be put right without risk is"),
)
@click.option("--fix", is_flag=True, help="Put right what is safe: file modes, an old address, migrations.")
@click.option("--all", "everything", is_flag=True, help="Show what is well or was skipped, too.")
@output_option()
def doctor(fix: bool, everything: bool, output: str) -> int:
    """Look at the home, the daemon, the stores, keys, backups and what is sent: each ok, warn or fail, with why and the
    one command that puts it right; skip is what there was nothing to look at.

    Changes nothing without --fix. Exits with 0 when all is well, 10 with warnings, 1 when something has failed.
    """
    import msgspec

    from universal_registry.care.checks.finding import State
    from universal_registry.care.doctor import examine, exit_code

    loaded, trouble = forgiving_settings()
    if fix:
        _fix(loaded, trouble)
    found = examine(facts_of(loaded, trouble))
    words = told_in_words(output) or output in TABLES
    shown = [each for each in found if everything or not words or each.state not in (State.OK, State.SKIP)]
    if shown or not words:
        emit([msgspec.to_builtins(each) for each in shown], output, _SHAPE)
    counts = ", ".join(f"{sum(each.state is state for each in found)} {state}" for state in State)
    note(f"{len(found)} checks: {counts}")
    return exit_code(found)


def _fix(loaded: Loaded, trouble: SettingError | None) -> None:
    from universal_registry.care.doctor import fixes, repairs
    from universal_registry.cli.db import bring_up
    from universal_registry.kernel.errors import RegistryError

    for name in fixes(facts_of(loaded, trouble)):
        try:
            repairs(loaded.settings.home, lambda: bring_up(loaded.settings))[name]()
        except (RegistryError, OSError) as error:
            note(f"{name}: not put right: {error}")
        else:
            note(f"{name}: put right")


def facts_of(loaded: Loaded, trouble: SettingError | None = None) -> Facts:
    """What is seen from outside, and what the registry answers. Each trouble is a fact, too. Changes nothing."""
    from universal_registry.care.looking import look_at, look_at_backups
    from universal_registry.client.http import find_daemon
    from universal_registry.kernel.errors import RegistryError, TimedOut, Unreachable
    from universal_registry.kernel.settings import Places
    from universal_registry.kernel.world import SystemWorld

    settings, world = loaded.settings, SystemWorld()
    facts = look_at(settings, world, answers=find_daemon(Places(settings.home)) is not None)
    facts.settings_warnings, facts.settings_trouble = loaded.warnings, str(trouble or "")
    if facts.frozen:
        facts.answers, facts.silent = False, f"{facts.holder} stands still"
    if not facts.initialised or facts.frozen:
        return facts
    try:
        with session(forgiving=True) as asked:
            facts.status, facts.keys = asked.read("/v1/-/status"), asked.read("/v1/-/keys")
            if asked.daemon is not None:
                facts.health = asked.request("GET", "/health").json()
        look_at_backups(facts, settings, world, str(facts.status["cursor"]).partition(".")[0])
    except RegistryError as error:
        facts.silent = str(error)
        facts.answers = facts.answers and not isinstance(error, TimedOut | Unreachable)
    return facts
