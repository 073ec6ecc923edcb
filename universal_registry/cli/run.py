"""`ureg run`: a command with the variables of an environment."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.output import json_text
from universal_registry.cli.session import current_settings
from universal_registry.environment import environment
from universal_registry.kernel.errors import Invalid, NoSuchCommand, NotExecutable, NotFound, UsageError
from universal_registry.kernel.ids import check_namespace

if TYPE_CHECKING:
    from universal_registry.registry.record import Record
    from universal_registry.registry.service import RegistryService


@command(
    "run",
    Example("ureg run --env staging -- ./serve --port 8080"),
    Example("ureg run --env production -- env", "what a command is given"),
    context_settings={"allow_interspersed_args": False},
)
@click.option("--env", "name", required=True, metavar="NAME", help="The environment: its record, and its namespace.")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [WORD]...", type=click.UNPROCESSED)
def run(name: str, words: tuple[str, ...]) -> None:
    """Run a command with the variables of an environment added to those that are there; it exits as the command does.

    They are the `variables` of the record `environment/NAME` and, counting more, each exported `env_var` in the
    namespace NAME. Secrets among them are opened here, with the registry's key file, and reach the command alone: so it
    must be a registry of this machine whose key you may read. Exits with 127 when there is no such command, with 126
    when it cannot be run.
    """
    check_namespace(name)
    given = asyncio.run(_variables(name))
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, {**environment(), **given})  # noqa: S606 - the user's own command
    except FileNotFoundError:
        raise NoSuchCommand(f"there is no command {words[0]!r:.80}") from None
    except OSError as error:
        if error.errno == errno.E2BIG:
            longest = max(given, key=lambda each: len(given[each]), default="")
            hint = f"the longest of the environment is {longest}" if longest else None
            raise NotExecutable("the command's words and variables are more than the system takes", hint=hint) from None
        raise NotExecutable(f"{words[0]!r:.80} cannot be run: {error.strerror or error}") from None
    except ValueError:
        raise UsageError("the command holds a NUL character") from None


async def _variables(name: str) -> dict[str, str]:
    from universal_registry.app import open_app
    from universal_registry.kernel.world import SystemWorld

    app = await open_app(current_settings(), world=SystemWorld(), read_only=True)
    try:
        return await _read(app.service, name)
    finally:
        await app.close()


async def _read(service: RegistryService, name: str) -> dict[str, str]:
    from universal_registry.registry.selector import Selector

    named = [each for each in await service.records.find(name, None) if each.kind == "environment"]
    if len(named) > 1:
        places = ", ".join(each.namespace for each in named[:10])
        raise UsageError(f"environment {name} is in {len(named)} namespaces: {places}", hint="keep one of them")
    records: list[Record] = []
    async for page in service.pages(Selector(kinds=("env_var",), namespaces=(name,))):
        records += page.records
    if not named and not records:
        hint = f"ureg create environment {name} variables:='{{...}}', or ureg set env_var VARIABLE value=... -n {name}"
        raise NotFound(f"there is no environment {name}, and no env_var in namespace {name}", hint=hint)
    found = _of_environment(named[0].spec.get("variables", {})) if named else {}
    return found | dict(_of_records((each.name, service.reveal(each)) for each in records))


def _of_environment(variables: Mapping[str, Any]) -> dict[str, str]:
    return {name: _checked(name, value) for name, value in variables.items() if value is not None}


def _of_records(records: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterable[tuple[str, str]]:
    for name, spec in records:
        value = spec.get("value", spec.get("secret_value"))
        if spec.get("exported", True) and value is not None:
            yield name, _checked(name, value)


def _checked(name: str, value: Any) -> str:
    """The value as a program reads it: text as it is, everything else as JSON."""
    if not name or "=" in name:
        hint = "rename it in the environment's variables, or set exported=false on the env_var"
        raise Invalid(f"{name!r:.80} cannot be the name of a variable", hint=hint)
    if isinstance(value, str) and "\0" in value:
        raise Invalid(f"variable {name} holds a NUL character, which no program can be given")
    return value if isinstance(value, str) else json_text(value)
