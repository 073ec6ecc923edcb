"""`ureg shell`: where the functions for shells are, as a line that a shell takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.output import write
from universal_registry.kernel.errors import NotFound

_ZSH, _SH = "shell/zsh/universal-registry.plugin.zsh", "registry_cli.sh"


@command(
    "shell",
    Example("ureg shell zsh >> ~/.zshrc", "the functions of docs/reference/zsh.md in each new zsh"),
    Example("ureg shell sh >> ~/.profile", "registry_cli COMMAND in sh, dash, bash"),
)
@click.argument("name", metavar="zsh|sh", type=click.Choice(("zsh", "sh")))
def shell(name: str) -> None:
    """Print the line that brings the registry's functions into a shell, however ureg was installed: for its start-up
    file, or to be pasted."""
    package = Path(__file__).resolve().parents[1]
    if name == "zsh":
        write(f"source {shlex.quote(str(_found(package / _ZSH)))}")
    else:
        script = _found(package / "shell" / "sh" / _SH, package.parent / "cli" / _SH)
        write(f'registry_cli() {{ sh {shlex.quote(str(script))} "$@"; }}')


def _found(*places: Path) -> Path:
    """The first of them that is there: installed, or in a checkout. Raises NotFound."""
    for place in places:
        if place.is_file():
            return place
    raise NotFound(f"{places[0]} is not there", hint="install universal-registry again: this copy of it is not whole")
