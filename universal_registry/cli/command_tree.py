"""The commands as data: for completion, man pages and whoever else shows all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import click

from universal_registry.cli.command import Command, Group
from universal_registry.cli.commands import ENTRIES

FILES, NOTHING = "files", "nothing"
# What stands for a word of a command line: a list that is known here, or how it is asked for.
_BY_METAVAR = {"FILE": FILES, "FOLDER": FILES, "FILE...": FILES, "FOLDER|URL": FILES, "FILE|-": FILES}
_BY_NAME = {"kind": "kinds", "names": "names"}
_TARGETS = ("--target", "--targets")
_NAMED_BY_GROUP = {
    "target": "target", "context": "context", "session": "session", "consumer": "consumer", "peer": "peer",
    "delivery": "delivery", "token": "token", "webhook": "target",
}  # fmt: skip


class Flag(NamedTuple):
    """An option. `words`: its spellings; `takes`: what its value is, empty when it has none."""

    words: tuple[str, ...]
    takes: str
    help: str
    metavar: str


class Node(NamedTuple):
    """A command, or a group of them. `operands`: what each word is, the last again and again if `many`."""

    path: tuple[str, ...]
    help: str
    command: Command | Group
    inner: tuple[tuple[str, str], ...]
    flags: tuple[Flag, ...]
    operands: tuple[str, ...]
    many: bool


def nodes() -> Iterator[Node]:
    """All of them, the top first, each group before what is in it."""
    from universal_registry.cli.root import root

    top = root()
    inner = tuple((entry.name, entry.help) for entry in ENTRIES)
    yield Node((), top.help or "", top, inner, _flags(top), (), many=False)
    context = click.Context(top)
    for entry in ENTRIES:
        found = top.get_command(context, entry.name)
        assert isinstance(found, Command | Group)
        yield from _below((entry.name,), entry.help, found)


def _below(path: tuple[str, ...], text: str, command: Command | Group) -> Iterator[Node]:
    inner: list[tuple[str, Command | Group]] = []
    for name, each in command.commands.items() if isinstance(command, Group) else ():
        assert isinstance(each, Command | Group)
        inner.append((name, each))
    listed = tuple((name, first_sentence(each)) for name, each in inner)
    operands = [each for each in command.params if isinstance(each, click.Argument)]
    yield Node(
        path, text, command, listed, _flags(command),
        tuple(_operand(path, each) for each in operands), any(each.nargs == -1 for each in operands),
    )  # fmt: skip
    for name, each in inner:
        yield from _below((*path, name), first_sentence(each), each)


def first_sentence(command: click.Command) -> str:
    """What a command does, in short."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return text.split(". ")[0].split(": ")[0].rstrip(".")


def _flags(command: click.Command) -> tuple[Flag, ...]:
    found = []
    for each in command.params:
        if isinstance(each, click.Option):
            valued = not each.is_flag and not each.count
            takes = _value(each) if valued else ""
            metavar = (each.metavar or each.type.name.upper()) if valued else ""
            found.append(Flag((*each.opts, *each.secondary_opts), takes, each.help or "", metavar))
    return (*found, Flag(("-h", "--help"), "", "Show this message and exit.", ""))


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "words " + " ".join(map(str, option.type.choices))
    if any(word in _TARGETS for word in option.opts):
        return "target"
    if "--context" in option.opts:
        return "context"
    if "--kind" in option.opts:
        return "kinds"
    return _BY_METAVAR.get(option.metavar or "", NOTHING)


def _operand(path: tuple[str, ...], argument: click.Argument) -> str:
    name = argument.name or ""
    metavar = argument.metavar or ""
    if metavar in _BY_METAVAR or "FILE" in metavar:
        return FILES
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name == "name" and len(path) == 1:
        return "names"
    if name in ("name", "session_id", "delivery_id", "ids", "peer_name", "names") and path[0] in _NAMED_BY_GROUP:
        return _NAMED_BY_GROUP[path[0]] if path[-1] != "add" else NOTHING
    if path == ("completion",):
        return "words zsh bash fish"
    return NOTHING
