"""What commands show fits the terminal, and cannot steer it."""

from __future__ import annotations

import os

from universal_registry.kernel.visible import escaped as escaped  # noqa: PLC0414 - what commands show comes from here


def terminal_width() -> int | None:
    """The columns of the terminal that standard output is; None when it is none."""
    try:
        return os.get_terminal_size(1).columns or None
    except OSError:
        return None
