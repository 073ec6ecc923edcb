"""`ureg config`: the settings in force."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.cli.session import loaded_settings, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from universal_registry.environment import Loaded

_NAME, _VALUE = Column("SETTING", "setting", whole=True), Column("VALUE", "value")
_ORIGIN = Column("FROM", "origin")


@click.group("config", cls=Group, examples=(Example("ureg config show --origin"),))
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
    from universal_registry.kernel.errors import NotFound

    loaded = loaded_settings()
    items = [item for item in _items(loaded) if not changed or item["origin"] != "default"]
    wanted = [item for item in items if not prefix or f"{item['setting']}.".startswith(f"{prefix}.")]
    if prefix and not wanted and not changed:
        raise NotFound(f"no setting is called {prefix!r:.80}", hint="`ureg config show` lists them")
    columns = (_NAME, _VALUE, _ORIGIN) if origin else (_NAME, _VALUE)
    if not origin and output != "table":
        wanted = [{"setting": item["setting"], "value": item["value"]} for item in wanted]
    emit(wanted, output, Shape("such settings", columns, lambda item: str(item["setting"])))
    warn(list(loaded.warnings))


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
        elif item.name in ("retry", "encryption"):
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
