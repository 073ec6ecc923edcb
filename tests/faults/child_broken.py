"""`ureg serve`, with one protection taken away: tests show with it that they would notice.

    child_broken.py answers-before-commit | moves-before-answer

The product has no switch for this: what is broken is broken here, in the child's own memory.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from universal_registry import app
from universal_registry.environment import load_settings
from universal_registry.propagation.window import LaneRun, Mark
from universal_registry.registry.decide import touched_keys
from universal_registry.storage import writer

HELD_BACK = 0.05


def answers_before_commit() -> None:
    """A writer that answers when it has decided, and commits a little later."""

    async def commit_some(self: writer.GroupWriter, group: list[writer._Waiting]) -> None:
        requests = [waiting.request for waiting in group]
        async with self._store.batch() as batch:
            heads = await batch.heads({key for request in requests for key in touched_keys(request)})
            folded = writer.fold(batch.head, heads, requests, self._catalogue)
            if folded.changes:
                await batch.write(folded.changes, folded.records)
            for waiting, answer in zip(group, folded.answers, strict=True):
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


BROKEN: dict[str, Callable[[], None]] = {
    "answers-before-commit": answers_before_commit,
    "moves-before-answer": moves_before_answer,
}


def main() -> int:
    BROKEN[sys.argv[1]]()
    return app.serve(load_settings())


if __name__ == "__main__":
    sys.exit(main())
