"""`ureg context`: several registries, each by a name."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option
from universal_registry.cli.contexts import HOME, Context, chosen, one, read, registry_url, write
from universal_registry.cli.output import Column, Shape, emit, tell
from universal_registry.cli.session import note
from universal_registry.environment import environment
from universal_registry.kernel.errors import NotFound, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_SHAPE = Shape(
    "contexts: ureg context add NAME FOLDER|URL",
    (
        Column("CURRENT", lambda item: "*" if item["current"] else ""),
        Column("NAME", "name", whole=True),
        Column("REGISTRY", lambda item: item["home"] or item["url"], whole=True),
        Column("TOKEN FILE", "token_file"),
    ),
    lambda item: str(item["name"]),
)


@click.group(
    "context",
    cls=Group,
    examples=(
        Example("ureg context add work https://registry.example:8443 --token-file ~/.config/work.token"),
        Example("ureg context use work", "commands are for it from now on"),
        Example("ureg get alias --context work", "this one is"),
    ),
)
def context() -> None:
    """Names for the registries that you work with: homes on this machine, and daemons elsewhere.

    Which one a command is for: `--home` or `--context`, else REGISTRY_CONTEXT, else REGISTRY_HOME, else the context in
    use, else the checkout or your own data folder.
    """


@context.command("ls", cls=Command, examples=(Example("ureg context ls"), Example("ureg context ls -o name")))
@output_option()
def ls(output: str) -> None:
    """List the contexts, with a star at the one that this command would be for."""
    _, contexts = read()
    here = chosen()
    emit(sorted((_item(each, here) for each in contexts.values()), key=lambda item: item["name"]), output, _SHAPE)


def _item(each: Context, here: Context | None) -> dict[str, Any]:
    fields = {name: value for name, value in each._asdict().items() if name != "origin"}
    return {**fields, "current": here is not None and here.name == each.name}


@context.command(
    "add",
    cls=Command,
    examples=(
        Example("ureg context add mine ~/registry", "a folder of this machine"),
        Example("ureg context add lab http://127.0.0.1:8080 --token-file ~/lab.token"),
        Example("ureg context add work https://registry.example:8443 --token-file ~/work.token --ca ~/work-ca.pem"),
    ),
)
@click.argument("name")
@click.argument("place", metavar="FOLDER|URL")
@click.option("--token-file", metavar="FILE", help="Holds the token that is sent to the URL.")
@click.option(
    "--ca", metavar="FILE", help="The authority (PEM) of the URL's certificate; those of the system if absent."
)
def add(name: str, place: str, token_file: str | None, ca: str | None) -> None:
    """Add a context, or change one. Nothing is asked of the registry. A token is not copied: its file is read.

    Beyond this machine a URL must be https://, since tokens must not go in clear.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r:.80} is no name of a context", hint="letters, digits, dots, - and _")
    current, contexts = read()
    if "://" in place:
        url = registry_url(place)
        made = Context(name, url=url, token_file=_file(token_file, "token"), ca_file=_file(ca, "authority"))
        if ca and not place.startswith("https://"):
            raise UsageError("--ca is for https://")
    elif token_file or ca:
        raise UsageError("--token-file and --ca are for a URL", hint="a folder's daemon knows who calls")
    else:
        made = Context(name, home=os.path.abspath(os.path.expanduser(place)))
    write(current, {**contexts, name: made})
    tell(f"context {name} {'changed' if name in contexts else 'added'}")


def _file(path: str | None, what: str) -> str | None:
    if path is None:
        return None
    found = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(found):
        raise NotFound(f"there is no file {found!r:.200} with the {what}")
    return found


@context.command(
    "use", cls=Command, examples=(Example("ureg context use work"), Example("ureg context use -", "none of them"))
)
@click.argument("name")
def use(name: str) -> None:
    """Make a context the one that commands are for where nothing else says so; `-` takes that back."""
    _, contexts = read()
    if name != "-":
        one(contexts, name)
    write(None if name == "-" else name, contexts)
    tell("no context is in use" if name == "-" else f"context {name} is in use")
    _tell_what_counts_more(name)


def _tell_what_counts_more(name: str) -> None:
    """Whoever has chosen one is told when commands go elsewhere all the same."""
    here, known = chosen(), environment()
    if name == "-" or (here is not None and here.name == name and HOME.get() is None):
        return
    if (said := known.get("REGISTRY_CONTEXT")) and here is not None:
        note(f"warning: commands here are for context {said}: REGISTRY_CONTEXT counts more; unset it")
    elif said := known.get("REGISTRY_HOME"):
        note(
            f"warning: commands here are for {said}: REGISTRY_HOME counts more, which ./ureg of a checkout sets to it; "
            f"unset it and run an installed ureg, or name the context: --context {name}, REGISTRY_CONTEXT={name}"
        )


@context.command("rm", cls=Command, examples=(Example("ureg context rm work"),))
@click.argument("name")
def rm(name: str) -> None:
    """Forget a context. The registry itself, and the token's file, stay as they are."""
    current, contexts = read()
    one(contexts, name)
    write(None if current == name else current, {key: each for key, each in contexts.items() if key != name})
    tell(f"context {name} removed{'; none is in use now' if current == name else ''}")
