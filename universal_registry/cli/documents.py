"""Record documents from files, folders and standard input, each with the place it came from."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from universal_registry.cli.reading import LIMIT, read_file, read_input, unreadable
from universal_registry.kernel.errors import Invalid, NotFound, RegistryError, TooLarge
from universal_registry.kernel.limits import Limits
from universal_registry.kernel.loader import load_json, load_ndjson, load_yaml

ENDINGS = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson"}
MOST = 10_000
_LIMITS = Limits(body=LIMIT, keys=1_000_000)


class Placed(NamedTuple):
    """A document, and where it stands: `aliases.yaml, document 3`."""

    value: Any
    place: str


def gather(paths: tuple[str, ...]) -> list[Placed]:
    """All documents of files, folders (plain files with a known ending, in order, not hidden ones) and `-`.

    A list of records counts as its items. Raises Malformed, TooLarge, NotFound, UsageError naming the file.
    """
    found: list[Placed] = []
    for path in paths:
        for file in _files(path):
            for number, value in enumerate(read_documents(file), 1):
                found.append(Placed(value, f"{'standard input' if file == '-' else file}, document {number}"))
                if len(found) > MOST:
                    raise TooLarge(f"more than {MOST} documents", hint="apply them in parts")
    return found


def operations(placed: list[Placed], op: str) -> list[dict[str, Any]]:
    """The documents as operations of a batch. Raises Invalid naming the place of what is no record."""
    for each in placed:
        if not isinstance(each.value, dict) or "op" in each.value:
            raise Invalid(f"{each.place} is not a record", hint='it begins like {"kind": ..., "name": ...}')
    return [{**each.value, "op": op} for each in placed]


def _files(path: str) -> list[str]:
    if path == "-" or not os.path.isdir(path):
        return [path]
    found = []
    for folder, folders, names in os.walk(path, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            file for name in sorted(names) if _is_ours(name) and os.path.isfile(file := os.path.join(folder, name))
        ]
    if not found:
        raise NotFound(f"no documents in {path!r:.200}", hint=f"their names end with {', '.join(ENDINGS)}")
    return found


def _refuse(error: OSError) -> None:
    raise unreadable(str(error.filename), error)


def _is_ours(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


def read_documents(path: str) -> list[Any]:
    """The documents of one file, in the language that its ending names; of others and of `-` it is recognised."""
    data = read_input() if path == "-" else read_file(path)
    language = ENDINGS.get(os.path.splitext(path)[1].lower()) or _recognised(data)
    try:
        if language == "yaml":
            values = load_yaml(data, limits=_LIMITS)
        elif language == "ndjson":
            values = list(load_ndjson(data, limits=_LIMITS))
        else:
            values = [load_json(data, limits=_LIMITS)]
    except RegistryError as error:
        raise type(error)(f"{path}: {error.message}" if path != "-" else error.message, hint=error.hint) from None
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _recognised(data: bytes) -> str:
    """JSON begins with a bracket; when its first line is a whole value and there are more, it is NDJSON."""
    text = data.lstrip(b" \t\r\n")
    if text[:1] not in (b"{", b"["):
        return "yaml"
    first, _, rest = text.partition(b"\n")
    if text[:1] == b"{" and rest.strip():
        try:
            load_json(first, limits=_LIMITS)
        except RegistryError:
            return "json"
        return "ndjson"
    return "json"
