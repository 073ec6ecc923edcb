"""`ureg serve` whose workers can be killed and hung from outside: by a file in the folder of the first argument.

    child_faulty.py FOLDER
    FOLDER/die-NAME: the worker of that name raises at its next turn, once.   FOLDER/hang-NAME: it hangs there, once.

The product has no switch for this: it is put in here, in the child's own memory, and the supervisor has less patience.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from universal_registry import serving
from universal_registry.environment import load_settings
from universal_registry.runner import supervisor
from universal_registry.runner.workers.health import HealthWorker
from universal_registry.runner.workers.propagation import PropagationWorker
from universal_registry.runner.workers.streaming import StreamingWorker
from universal_registry.runner.workers.webhook import WebhookWorker

STUCK, GIVE_UP = 3.0, 5.0


def faulty(cls: Any, method: str, folder: Path, name: str) -> None:
    """At each turn of that worker, look for its file."""
    turn: Callable[..., Awaitable[Any]] = getattr(cls, method)

    async def with_faults(self: Any, *given: Any, **asked: Any) -> Any:
        if taken(folder / f"die-{name}"):
            raise ZeroDivisionError(f"a fault put into the {name} worker")
        if taken(folder / f"hang-{name}"):
            await asyncio.Event().wait()
        return await turn(self, *given, **asked)

    setattr(cls, method, with_faults)


def taken(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


if __name__ == "__main__":
    where = Path(sys.argv[1])
    faulty(PropagationWorker, "_plan", where, "propagation")
    faulty(WebhookWorker, "turn", where, "webhook")
    faulty(StreamingWorker, "_tried", where, "streaming")
    faulty(HealthWorker, "write", where, "health")
    supervisor.GIVE_UP = GIVE_UP
    assert supervisor.Supervisor.__init__.__kwdefaults__ is not None
    supervisor.Supervisor.__init__.__kwdefaults__["stuck_after"] = STUCK
    sys.exit(serving.serve(load_settings()))
