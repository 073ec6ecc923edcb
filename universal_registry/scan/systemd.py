"""systemd services from their unit files: nothing is asked of a running systemd, so it works in an image as well.

`state` is what the files say (enabled, disabled, static, masked, alias files left out), not whether it runs: that would
change from scan to scan. Drop-in folders are not merged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from universal_registry.scan.base import Found, Source, SourceReader, always
from universal_registry.scan.secrets import command_holds_secret

# The first folder that has a unit wins.
_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
_UNIT_BYTES = 1 << 20
_LISTENS = ("ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO")
_Unit = dict[str, list[str]]


_where = always(*(f"{folder}/*.service" for folder in _FOLDERS))


def _find(source: Source) -> Iterator[Found]:
    places: dict[str, str] = {}
    wanted: set[str] = set()
    for folder in _FOLDERS:
        for name in source.names(folder):
            if name.endswith((".service", ".socket")):
                places.setdefault(name, f"{folder}/{name}")
            elif name.endswith((".wants", ".requires")) and folder == _FOLDERS[0]:
                wanted.update(source.names(f"{folder}/{name}"))
    for name in sorted(places):
        if name.endswith(".service"):
            yield from _service(source, name, places, wanted)


def _service(source: Source, name: str, places: dict[str, str], wanted: set[str]) -> Iterator[Found]:
    path = places[name]
    target = source.link(path)
    if target is not None and target != "/dev/null" and target.rpartition("/")[2] != name:
        return  # an alias of another unit
    info = source.stat(path)
    masked = target == "/dev/null" or (info is not None and info.st_size == 0)
    unit = {} if masked else _parse(source.text(path, _UNIT_BYTES))
    if unit is None:
        return
    command = next(iter(unit.get("Service.ExecStart", [])), None)
    if command is not None and command_holds_secret(command):
        source.skip("its command line seems to hold a secret; only the rest is recorded", path)
        command = None
    socket = places.get(name.removesuffix(".service") + ".socket")
    listening = _parse(source.text(socket, _UNIT_BYTES)) if socket and not masked else None
    spec = {
        "unit": name,
        "state": "masked" if masked else _state(name, unit, wanted),
        "command": command,
        "listens": [text for key in _LISTENS for text in (listening or {}).get(f"Socket.{key}", [])] or None,
    }
    title = next(iter(unit.get("Unit.Description", [])), "")
    yield from source.found("service", name, "DaemonService", spec, title)


def _state(name: str, unit: _Unit, wanted: set[str]) -> str:
    template = re.sub(r"@\.service$", "@", name)
    if name in wanted or (template != name and any(link.startswith(template) for link in wanted)):
        return "enabled"
    return "disabled" if any(key.startswith("Install.") for key in unit) else "static"


def _parse(text: str | None) -> _Unit | None:
    """`Section.Key` -> values. An empty value clears what stood before, as in systemd."""
    if text is None:
        return None
    unit: _Unit = {}
    section = ""
    for line in re.sub(r"\\\n", " ", text).split("\n"):
        line = line.strip()
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and value:
            unit.setdefault(f"{section}.{key}", []).append(value)
        elif equals:
            unit[f"{section}.{key}"] = []
    return unit


READER = SourceReader("systemd", "systemd services, from their unit files", ("service",), _where, _find)
