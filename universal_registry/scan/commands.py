"""What PATH leads to: its entries (`path`) and the executables in them (`command`).

A command is named by its full path (`/usr/bin/g++`), because two folders may hold the same name; its title is the bare
name. A folder that PATH reaches twice (`/bin` -> `usr/bin`) counts once, under its real path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from universal_registry.scan.base import Found, Machine, Source, SourceReader

_SHEBANG_BYTES = 256


def _where(machine: Machine) -> list[str]:
    return machine.search_path()


def _find_entries(source: Source) -> Iterator[Found]:
    for priority, entry in enumerate(source.machine.search_path(), 1):
        info = source.stat(entry)
        exists = info is not None and stat.S_ISDIR(info.st_mode)
        spec = {"path": entry, "category": "PATH", "priority": priority, "exists": exists}
        yield from source.found("path", entry, "PathEntry", spec)


def _find_commands(source: Source) -> Iterator[Found]:
    seen: set[str] = set()
    for entry in source.machine.search_path():
        real = source.real(entry)
        folder = source.machine.logical(os.path.realpath(real)) if real is not None else entry
        if folder in seen:
            continue
        seen.add(folder)
        for name in source.names(folder):
            yield from _command(source, folder, name)


def _command(source: Source, folder: str, name: str) -> Iterator[Found]:
    path = f"{folder.rstrip('/')}/{name}"
    info = source.stat(path)
    if info is None or not stat.S_ISREG(info.st_mode) or not info.st_mode & 0o111:
        return
    interpreter = None
    if info.st_mode & 0o444:
        first = source.head(path, _SHEBANG_BYTES) or b""
        if first.startswith(b"#!"):
            interpreter = first[2:].split(b"\n", 1)[0].decode("utf-8", "replace").strip() or None
    spec = {
        "path": path,
        "interpreter": interpreter,
        "size": info.st_size,
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
    }
    yield from source.found("command", path, "ScriptCommand" if interpreter else None, spec, name)


PATH = SourceReader("path", "the entries of PATH, in order", ("path",), _where, _find_entries)
COMMANDS = SourceReader("commands", "executables in the folders of PATH", ("command",), _where, _find_commands)
