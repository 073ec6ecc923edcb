"""The marker beside a store that says how far it has been told of: a small file, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.sync.identity import Marker


def read_marker(path: Path) -> Marker | None:
    """What it says; None where there is none, or none that can be read: then nothing can be vouched for."""
    try:
        boot, told = path.read_text(encoding="utf-8").split()
        return Marker(boot, int(told))
    except (OSError, ValueError):
        return None


def write_marker(path: Path, marker: Marker) -> None:
    """Replace it. It survives a kill; after a power cut an older one may be there, and a new identity is minted at most
    once too often. Raises StorageUnavailable."""
    draft = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(f"{marker.boot} {marker.told}\n", encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise StorageUnavailable(f"{path} cannot be written: {error.strerror}", hint="check the folder") from error
