"""Aliases and functions of the shell's start files (`alias`, `function`), under their plain names.

The files are parsed, never sourced, and what they `source` themselves is not followed. Of several definitions of one
name the last in the order of `_places` counts, as it would when one shell read them all; each earlier one is
reported. A suffix alias of zsh (`alias -s md=vim`) lives apart from the others there, so it is called `.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from universal_registry.scan.base import Found, Machine, Source, SourceReader
from universal_registry.scan.secrets import command_holds_secret
from universal_registry.scan.shellparse import AliasDefinition, FunctionDefinition, ShellFile, parse

_FILE_BYTES = 1 << 20
_NAMES = {"sh": "Posix", "bash": "Bash", "zsh": "Zsh"}


class _Place(NamedTuple):
    """A file, or a folder whose files with this ending count (`ending` None: a file)."""

    shell: str
    path: str
    ending: str | None = None


class _Definition(NamedTuple):
    name: str
    classification: str
    text: str
    spec: dict[str, Any]
    where: str


def _places(machine: Machine) -> list[_Place]:
    home = machine.at_home
    zdotdir = machine.environ.get("ZDOTDIR", "")
    zsh_home = machine.logical(zdotdir) if zdotdir.startswith("/") else home()
    zsh = [f"{folder}/{name}" for folder in ("/etc/zsh", "/etc") for name in ("zshenv", "zprofile", "zshrc")]
    own = (".zshenv", ".zprofile", ".zshrc", ".zsh_aliases", ".zsh_functions", ".zlogin")
    bash = (".bash_profile", ".bash_login", ".bashrc", ".bash_aliases", ".bash_functions")
    return [
        _Place("sh", "/etc/profile"),
        _Place("sh", "/etc/profile.d", ".sh"),
        *(_Place("sh", home(name)) for name in (".profile", ".aliases", ".functions")),
        *(_Place("bash", path) for path in ("/etc/bash.bashrc", "/etc/bashrc")),
        *(_Place("bash", home(name)) for name in bash),
        _Place("bash", home(".bashrc.d"), ""),
        *(_Place("zsh", path) for path in zsh),
        *(_Place("zsh", f"{zsh_home.rstrip('/')}/{name}") for name in own),
        _Place("zsh", home(".zshrc.d"), ""),
        _Place("zsh", home(".oh-my-zsh", "custom"), ".zsh"),
    ]


def _where(machine: Machine) -> list[str]:
    return [place.path if place.ending is None else f"{place.path}/*{place.ending}" for place in _places(machine)]


def _files(source: Source) -> Iterator[tuple[str, str, ShellFile]]:
    """Shell, path and content of every file that exists, in order."""
    for place in _places(source.machine):
        paths = [place.path]
        if place.ending is not None:
            paths = [f"{place.path}/{name}" for name in source.names(place.path) if name.endswith(place.ending)]
        for path in paths:
            text = source.text(path, _FILE_BYTES)
            if text is not None:
                yield place.shell, path, parse(text.replace("\r\n", "\n"), zsh=place.shell == "zsh")


def _last(source: Source, word: str, definitions: Iterable[_Definition]) -> Iterator[_Definition]:
    """The definition of each name that counts."""
    kept: dict[str, _Definition] = {}
    for each in definitions:
        if (earlier := kept.pop(each.name, None)) is not None:
            source.skip(f"{word} {each.name!r} is defined again at {each.where}", earlier.where)
        kept[each.name] = each
    for each in kept.values():
        if command_holds_secret(each.text):
            source.skip(f"{word} {each.name!r} seems to hold a secret", each.where)
        else:
            yield each


def _find_aliases(source: Source) -> Iterator[Found]:
    for each in _last(source, "alias", _definitions(source, _aliases)):
        yield from source.found("alias", each.name, each.classification, each.spec)


def _find_functions(source: Source) -> Iterator[Found]:
    for each in _last(source, "function", _definitions(source, _functions)):
        yield from source.found("function", each.name, each.classification, each.spec)


def _definitions(source: Source, take: Callable[[str, str, ShellFile], Iterator[_Definition]]) -> Iterator[_Definition]:
    word = "function" if take is _functions else "alias"
    for shell, path, parsed in _files(source):
        for line, note in parsed.notes:
            # What belongs to neither (an unclosed quote) concerns both.
            if not note.startswith(("alias", "function")) or note.startswith(word):
                source.skip(note, f"{path}:{line}")
        yield from take(shell, path, parsed)


def _aliases(shell: str, path: str, parsed: ShellFile) -> Iterator[_Definition]:
    for each in parsed.aliases:
        spec = {
            "command": each.command,
            "shell": shell,
            "global": True if each.is_global else None,
            "suffix": True if each.is_suffix else None,
            "file": path,
            "line": each.line,
        }
        name = f".{each.name}" if each.is_suffix else each.name
        yield _Definition(name, _alias_class(shell, each), each.command, spec, f"{path}:{each.line}")


def _alias_class(shell: str, alias: AliasDefinition) -> str:
    if alias.is_suffix:
        return "ZshSuffixAlias"
    return "ZshGlobalAlias" if alias.is_global else f"{_NAMES[shell]}Alias"


def _functions(shell: str, path: str, parsed: ShellFile) -> Iterator[_Definition]:
    for each in parsed.functions:
        yield _function(shell, path, each)


def _function(shell: str, path: str, each: FunctionDefinition) -> _Definition:
    spec = {"body": each.body, "shell": shell, "file": path, "line": each.line}
    return _Definition(each.name, f"{_NAMES[shell]}Function", each.body, spec, f"{path}:{each.line}")


ALIASES = SourceReader("aliases", "aliases in the start files of sh, bash and zsh", ("alias",), _where, _find_aliases)
FUNCTIONS = SourceReader(
    "functions", "functions in the start files of sh, bash and zsh", ("function",), _where, _find_functions
)
