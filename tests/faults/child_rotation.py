"""Rotates the keys of a home, and kills itself (-9) at the N-th point; N 0: never. Each point is named on stdout.

    child_rotation.py N

A point lies before and after every call by which a rotation changes a file or the store, and before every system call
by which a key file comes to be.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from universal_registry.app import App, open_app
from universal_registry.environment import load_settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry import key_control
from universal_registry.storage.keyfile import KeyFiles
from universal_registry.storage.keys_postgres import PgKeys
from universal_registry.storage.keys_sqlite import SqliteKeys

AT_ONCE: dict[str, Any] = {"ANNOUNCED": timedelta(0), "LOST": timedelta(0), "BATCH": 3}
"""What `key_control` is told, so that nothing is waited for and there are many steps."""


class Points:
    def __init__(self, fatal: int) -> None:
        self.fatal = fatal
        self.count = 0

    def pass_by(self, name: str) -> None:
        self.count += 1
        print(self.count, name, flush=True)
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def watched(points: Points, owner: Any, name: str, *, after: bool = True) -> None:
    """Put a point before, and one after, every call of a function."""
    inner: Callable[..., Any] = getattr(owner, name)
    label = f"{getattr(owner, '__name__', owner)}.{name}"

    def call(*args: Any, **named: Any) -> Any:
        points.pass_by(f"before {label}")
        result = inner(*args, **named)
        if after:
            points.pass_by(f"after {label}")
        return result

    async def call_async(*args: Any, **named: Any) -> Any:
        points.pass_by(f"before {label}")
        result = await inner(*args, **named)
        points.pass_by(f"after {label}")
        return result

    setattr(owner, name, call_async if asyncio.iscoroutinefunction(inner) else call)


async def rotate(points: Points) -> None:
    for name, value in AT_ONCE.items():
        setattr(key_control, name, value)
    app = await open_app(load_settings(), world=SystemWorld())
    for store in (SqliteKeys, PgKeys):
        for name in ("begin", "promote", "reseal", "save", "retire"):
            watched(points, store, name)
    for name in ("keep", "make_primary", "drop"):
        watched(points, KeyFiles, name)
    for name in ("link", "replace", "unlink", "fsync"):
        watched(points, os, name, after=False)
    try:
        await to_the_end(app)
    finally:
        await app.close()


async def to_the_end(app: App) -> None:
    """Rotate, or go on with it, and retire every key but the newest."""
    while (await app.keys.rotate("test"))["rotation"] is not None:
        pass
    for kid in [kid for kid in app.sealer.keyring.keys if kid != app.sealer.keyring.primary]:
        await app.keys.retire(kid, "test")


if __name__ == "__main__":
    assert Path(os.environ["REGISTRY_HOME"]).is_dir()
    asyncio.run(rotate(Points(int(sys.argv[1]))))
