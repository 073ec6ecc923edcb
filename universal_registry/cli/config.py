"""`ureg config`: the settings in force."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option
from universal_registry.cli.output import Column, Shape, emit, tell
from universal_registry.cli.session import forgiving_settings, loaded_settings, note, warn
from universal_registry.environment import Given
from universal_registry.kernel.errors import NotFound, UsageError
from universal_registry.kernel.settings import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from universal_registry.environment import Loaded

_GROUPED = {prefix.rstrip("."): table for prefix, table, _ in GROUPS}
_NAME, _VALUE = Column("SETTING", "setting", whole=True), Column("VALUE", "value")
_ORIGIN = Column("FROM", "origin")


@click.group(
    "config",
    cls=Group,
    examples=(
        Example("ureg config show --origin", "what is in force, and why"),
        Example("ureg config set retry.max_retries 8", "in config.py"),
        Example("ureg config validate"),
    ),
)
def config() -> None:
    """The settings of this registry."""


@config.command(
    "show",
    cls=Command,
    examples=(
        Example("ureg config show --origin", "and where each value comes from"),
        Example("ureg config show retry", "those of one group"),
        Example("ureg config show --changed", "those that are not the defaults"),
    ),
)
@click.argument("prefix", required=False, default="")
@click.option("--origin", is_flag=True, help="Also where each value comes from: default, config.py:LINE, a variable.")
@click.option("--changed", is_flag=True, help="Only those that are not the defaults.")
@output_option("table", "json", "ndjson", "yaml", "tsv")
def show(prefix: str, origin: bool, changed: bool, output: str) -> None:
    """Print the settings that a command or a daemon started here and now would have. A daemon that runs takes changes
    of config.py over with SIGHUP.
    """
    loaded = loaded_settings()
    items = [item for item in _items(loaded) if not changed or item["origin"] != "default"]
    wanted = [item for item in items if not prefix or f"{item['setting']}.".startswith(f"{prefix}.")]
    if prefix and not wanted and not changed:
        raise _unknown(prefix, tuple(loaded.origins))
    columns = (_NAME, _VALUE, _ORIGIN) if origin else (_NAME, _VALUE)
    if not origin and output != "table":
        wanted = [{"setting": item["setting"], "value": item["value"]} for item in wanted]
    emit(wanted, output, Shape("such settings", columns, lambda item: str(item["setting"])))
    warn(list(loaded.warnings))


@config.command(
    "set",
    cls=Command,
    examples=(
        Example("ureg config set retry.max_retries 8"),
        Example("ureg config set encryption.key_rotation_interval_days 30"),
    ),
)
@click.argument("setting")
@click.argument("value")
def set_(setting: str, value: str) -> None:
    """Write a value into config.py of the home; nothing else of that file is changed. The value is checked first.

    Settings of one group (`retry.`, `encryption.`, ...) stand there. Others have a variable, as REGISTRY_LISTEN.
    """
    from universal_registry.cli.config_file import change

    group, _, key = setting.partition(".")
    known, _ = forgiving_settings()  # what is to be replaced may be what cannot be used
    if setting not in known.origins:
        raise _unknown(setting, tuple(known.origins))
    if group not in _GROUPED or not key:
        variable = f"REGISTRY_{setting.upper()}"
        raise UsageError(f"{setting} is not kept in config.py", hint=f"set {variable} where the daemon is started")
    given = Given(value, f"{setting} VALUE")
    checked = getattr(getattr(loaded_settings(**{setting: given}).settings, group), key)
    path = known.settings.home / "config.py"
    change(path, _GROUPED[group], key, checked)
    tell(f"{setting} is {checked} in {path}")
    loaded = loaded_settings()
    if not loaded.origins[setting].startswith("config.py"):
        note(f"warning: {loaded.origins[setting]} is set too, and counts more")
    note("a daemon that runs takes it over with SIGHUP, or when it is started again")


def _unknown(setting: str, known: tuple[str, ...]) -> NotFound:
    from universal_registry.registry.words import near

    guesses = near(setting, known)
    hint = f"did you mean {guesses[0]}?" if guesses else "`ureg config show` lists them"
    return NotFound(f"no setting is called {setting!r:.80}", hint=hint)


@config.command("validate", cls=Command, examples=(Example("ureg config validate"),))
def validate() -> int:
    """Check config.py and the environment as a daemon that starts here would. Exits with 2 at a value that cannot be
    used, with 1 when something is set that nobody reads, else with 0.
    """
    loaded = loaded_settings()
    changed = sum(origin != "default" for origin in loaded.origins.values())
    warn(list(loaded.warnings))
    tell(f"all values can be used; {changed} are not the default")
    return 1 if loaded.warnings else 0


def _items(loaded: Loaded) -> Iterator[dict[str, Any]]:
    settings = loaded.settings
    for item in fields(settings):
        value = getattr(settings, item.name)
        if item.name == "database":
            yield {
                "setting": "database",
                "value": _database(value),
                "origin": loaded.origins.get("database", "default"),
            }
        elif item.name in _GROUPED:
            for each in fields(value):
                name = f"{item.name}.{each.name}"
                yield {"setting": name, "value": _plain(getattr(value, each.name)), "origin": loaded.origins[name]}
        else:
            yield {"setting": item.name, "value": _plain(value), "origin": loaded.origins[item.name]}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _database(value: Any) -> str:
    """Where the stores are; never a password."""
    return "sqlite" if value is None else f"postgresql: {value.name} on {value.host}:{value.port} as {value.user}"
