"""Python distributions, as pip lists them, in every site folder below the prefixes on PATH, pyenv's and the user's.

A record is named `pip:NAME@FOLDER`: the same distribution usually stands in several folders, and the name must not
depend on which others exist. NAME is normalised as the package index does (`PyYAML` -> `pyyaml`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from universal_registry.scan.base import Found, Machine, Source, SourceReader

_HEAD_BYTES = 64 << 10
_FIELDS = ("name", "version", "summary")


def _prefixes(machine: Machine) -> list[str]:
    bins = [entry for entry in machine.search_path() if entry.endswith("/bin")]
    own = [machine.at_home(".local")]
    return list(dict.fromkeys([entry[: -len("/bin")] or "/" for entry in bins] + ["/usr/local", "/usr", *own]))


def _where(machine: Machine) -> list[str]:
    folders = [f"{prefix.rstrip('/')}/lib/python*/{{site,dist}}-packages" for prefix in _prefixes(machine)]
    return [*folders, f"{_pyenv(machine)}/*/lib/python*/site-packages"]


def _pyenv(machine: Machine) -> str:
    return machine.environ.get("PYENV_ROOT", machine.at_home(".pyenv")).rstrip("/") + "/versions"


def _find(source: Source) -> Iterator[Found]:
    machine = source.machine
    pyenv = _pyenv(machine)
    prefixes = _prefixes(machine) + [f"{pyenv}/{name}" for name in source.names(pyenv)]
    seen: set[tuple[int, int]] = set()
    for prefix in prefixes:
        for folder in _site_folders(source, prefix.rstrip("/")):
            known = source.stat(folder)
            if known is not None and (known.st_dev, known.st_ino) not in seen:
                seen.add((known.st_dev, known.st_ino))
                yield from _distributions(source, folder)


def _site_folders(source: Source, prefix: str) -> Iterator[str]:
    for name in source.names(f"{prefix}/lib"):
        if re.fullmatch(r"(python|pypy)\d*(\.\d+)?", name):
            for kind in ("dist-packages", "site-packages"):
                yield f"{prefix}/lib/{name}/{kind}"


def _distributions(source: Source, folder: str) -> Iterator[Found]:
    seen: set[str] = set()
    for entry in source.names(folder):
        path = f"{folder}/{entry}"
        if entry.endswith(".dist-info"):
            path += "/METADATA"
        elif not entry.endswith(".egg-info"):
            continue
        elif (info := source.stat(f"{path}/PKG-INFO")) is not None and info:
            path += "/PKG-INFO"
        head = _headers(source.head(path, _HEAD_BYTES))
        name = re.sub(r"[-_.]+", "-", head.get("name", "")).lower()
        if not name:
            source.skip("no name in the metadata of a distribution", path)
        elif name in seen:
            source.skip(f"a second distribution of {name!r} in this folder", path)
        else:
            seen.add(name)
            spec = {"version": head.get("version"), "manager": "pip", "location": folder}
            yield from source.found("package", f"pip:{name}@{folder}", "PythonPackage", spec, head.get("summary", ""))


def _headers(data: bytes | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (data or b"").decode("utf-8", "replace").split("\n"):
        if not line.strip():
            break  # the description follows
        key, _, value = line.partition(":")
        if key.lower() in _FIELDS:
            found.setdefault(key.lower(), value.strip())
    return found


READER = SourceReader("pip", "Python distributions in the site folders of this machine", ("package",), _where, _find)
