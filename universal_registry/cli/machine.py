"""The machine that we run on, as the readers of `scan` are given it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from universal_registry.environment import environment
from universal_registry.kernel.errors import NotFound
from universal_registry.scan import Machine


def this_machine(folders: Sequence[str]) -> Machine:
    """`folders`: where git repositories are looked for. Raises NotFound for one that does not exist."""
    found = []
    for folder in folders:
        if not os.path.isdir(folder):
            raise NotFound(f"there is no folder {folder!r:.200}")
        found.append(Path(os.path.realpath(folder)))
    environ = environment()
    home = environ.get("HOME", "")
    return Machine(
        root=Path("/"),
        home=Path(home if home.startswith("/") else os.path.expanduser("~")),
        hostname=os.uname().nodename,
        environ=environ,
        folders=tuple(found),
        platform=sys.platform,
    )
