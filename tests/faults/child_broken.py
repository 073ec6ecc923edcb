"""`ureg serve`, with one protection taken away: tests show with it that they would notice.

    child_broken.py [short-leases] [answers-before-commit | moves-before-answer]

The product has no switch for this: what is broken is broken here, in the child's own memory. `short-leases` breaks
nothing: what a killed daemon held on PostgreSQL is free after two seconds and not after thirty, by the same rules.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta

from universal_registry import serving
from universal_registry.environment import load_settings
from universal_registry.propagation.engine import roster
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.lane import Mark
from universal_registry.storage import writer

HELD_BACK = 0.05


def answers_before_commit() -> None:
    """A writer that answers when it has decided, and commits a little later."""

    async def commit_some(self: writer.GroupWriter, group: list[writer._Waiting], _: object) -> None:
        async with self._store.batch() as batch:
            folding = await self._fold(batch, [waiting.request for waiting in group])
            if folding.changes:
                await batch.write(folding.changes, folding.records)
            for waiting, answer in zip(group, folding.answers, strict=True):
                writer._answer(waiting.answer, answer)
            loop = asyncio.get_running_loop()
            held = loop.create_future()
            loop.call_later(HELD_BACK, held.set_result, None)
            await held
        for listener in self._listeners:
            listener()

    writer.GroupWriter._commit_some = commit_some  # type: ignore[method-assign]


def moves_before_answer() -> None:
    """An engine that stores the end of what it has planned as the lane's position, whatever was answered."""

    def commit_point(self: LaneRun) -> tuple[Mark, list[object]]:
        return self.scanned, []

    LaneRun.commit_point = commit_point  # type: ignore[method-assign,assignment]


def short_leases() -> None:
    """Leases of 2 s, renewed every 0.2 s."""
    roster.LEASE = timedelta(seconds=2)
    roster._RENEW_SECONDS = 0.2


CHANGES: dict[str, Callable[[], None]] = {
    "answers-before-commit": answers_before_commit,
    "moves-before-answer": moves_before_answer,
    "short-leases": short_leases,
}


def main() -> int:
    for name in sys.argv[1:]:
        CHANGES[name]()
    return serving.serve(load_settings())


if __name__ == "__main__":
    sys.exit(main())
