"""Symbolic links: those of /etc/alternatives, and those of the home folder's dot files.

Named by the path of the link.
"""

from __future__ import annotations

from collections.abc import Iterator

from universal_registry.scan.base import Found, Machine, Source, SourceReader, always

_ALTERNATIVES = "/etc/alternatives"
_BINARIES = ("/bin/", "/sbin/", "/games/", "/libexec/")


_alternatives_in = always(_ALTERNATIVES)


def _find_alternatives(source: Source) -> Iterator[Found]:
    for name in source.names(_ALTERNATIVES):
        target = source.link(f"{_ALTERNATIVES}/{name}")
        if target is not None:
            binary = any(part in target for part in _BINARIES)
            yield from _link(source, f"{_ALTERNATIVES}/{name}", target, "BinarySymlink" if binary else "DataSymlink")


def _dotfiles_in(machine: Machine) -> list[str]:
    return [machine.at_home(".*"), machine.at_home(".config", "*")]


def _find_dotfiles(source: Source) -> Iterator[Found]:
    machine = source.machine
    paths = [machine.at_home(name) for name in source.names(machine.at_home()) if name.startswith(".")]
    paths += [machine.at_home(".config", name) for name in source.names(machine.at_home(".config"))]
    for path in paths:
        target = source.link(path)
        if target is not None:
            yield from _link(source, path, target, "DotfileSymlink")


def _link(source: Source, path: str, target: str, classification: str) -> Iterator[Found]:
    spec = {"source": path, "target": target, "exists": source.stat(path) is not None}
    yield from source.found("symlink", path, classification, spec)


ALTERNATIVES = SourceReader(
    "alternatives", "links that choose among alternatives", ("symlink",), _alternatives_in, _find_alternatives
)
DOTFILES = SourceReader("dotfiles", "dot files that are links", ("symlink",), _dotfiles_in, _find_dotfiles)
