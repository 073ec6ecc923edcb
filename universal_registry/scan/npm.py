"""Global npm packages, named `npm:NAME@FOLDER` (NAME may be `@scope/pkg`) for the reason that `pip.py` gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from universal_registry.scan.base import Found, Machine, Source, SourceReader

_MANIFEST_BYTES = 1 << 20


def _where(machine: Machine) -> list[str]:
    own = machine.environ.get("NPM_CONFIG_PREFIX", machine.at_home(".npm-global"))
    bins = [entry[: -len("/bin")] for entry in machine.search_path() if entry.endswith("/bin")]
    prefixes = [*bins, "/usr/local", "/usr", own]
    return list(dict.fromkeys(f"{prefix.rstrip('/')}/lib/node_modules" for prefix in prefixes))


def _find(source: Source) -> Iterator[Found]:
    seen: set[tuple[int, int]] = set()
    for folder in _where(source.machine):
        known = source.stat(folder)
        if known is not None and (known.st_dev, known.st_ino) not in seen:
            seen.add((known.st_dev, known.st_ino))
            for name in _packages(source, folder):
                yield from _package(source, folder, name)


def _packages(source: Source, folder: str) -> Iterator[str]:
    for name in source.names(folder):
        if name.startswith("@"):
            yield from (f"{name}/{inner}" for inner in source.names(f"{folder}/{name}"))
        elif not name.startswith("."):
            yield name


def _package(source: Source, folder: str, name: str) -> Iterator[Found]:
    path = f"{folder}/{name}/package.json"
    text = source.text(path, _MANIFEST_BYTES)
    if text is None:
        return
    try:
        manifest: Any = json.loads(text)
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        source.skip("not a JSON object", path)
        return
    version, description = manifest.get("version"), manifest.get("description")
    spec = {
        "version": version if isinstance(version, str) else None,
        "manager": "npm",
        "location": folder,
    }
    title = description if isinstance(description, str) else ""
    yield from source.found("package", f"npm:{name}@{folder}", "NodePackage", spec, title)


READER = SourceReader("npm", "npm packages that are installed globally", ("package",), _where, _find)
