"""`ureg serve`, whose store breaks one rule of its revisions: tests show with it that the replay would notice.

    child_replay.py [sound | sequence | stale-cache | old-answers | torn-batch]

The product has no switch for this: what is broken is broken here, in the child's own memory.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from universal_registry import serving
from universal_registry.__main__ import say
from universal_registry.environment import load_settings
from universal_registry.kernel.errors import RegistryError
from universal_registry.log.cursor import Head
from universal_registry.registry.operation import Committed, Request
from universal_registry.registry.ports import Seen
from universal_registry.registry.service import RegistryService, Written
from universal_registry.storage import writer
from universal_registry.storage.registry_sqlite import SqliteRegistry

HELD_BACK = 0.01
STALE = 0.05


def sequence() -> None:
    """Revisions from a sequence, drawn before the transaction: some commit after others that drew later."""
    drawn: dict[str, int] = {}
    submit = writer.GroupWriter.submit
    newest = [0]

    async def numbered(self: writer.GroupWriter, request: Request) -> Committed:
        newest[0] = max(newest[0], (await self._store.head()).revision) + 1  # type: ignore[attr-defined]
        drawn[request.txn_id] = newest[0]
        if newest[0] % 3 == 0:
            loop = asyncio.get_running_loop()
            held = loop.create_future()
            loop.call_later(HELD_BACK, held.set_result, None)
            await held
        return await submit(self, request)

    class AtDrawn(writer.Folding):
        def add(self, request: Request) -> None:
            self.head = Head(self.head.incarnation, drawn[request.txn_id] - 1, self.head.hash)
            super().add(request)

    writer.GroupWriter.submit = numbered  # type: ignore[method-assign]
    writer.Folding = AtDrawn  # type: ignore[misc]


def stale_cache() -> None:
    """Reads answered for a while from what was read before, under the newest revision."""
    look = SqliteRegistry.look
    cache: dict[Any, tuple[float, Seen]] = {}

    async def cached(self: SqliteRegistry, key: Any) -> Seen:
        now = asyncio.get_running_loop().time()
        if key not in cache or now - cache[key][0] > STALE:
            cache[key] = (now, await look(self, key))
        return msgspec.structs.replace(cache[key][1], revision=(await self.head()).revision)

    SqliteRegistry.look = cached  # type: ignore[method-assign]


def old_answers() -> None:
    """A store that says of itself that nobody writes it: answers are sent again that are not true any more."""
    SqliteRegistry.state = property(lambda _: 0)  # type: ignore[method-assign,assignment]


def torn_batch() -> None:
    """A batch that is done operation by operation, and answers as if it were one."""
    batch = RegistryService.batch

    async def torn(self: RegistryService, operations: Sequence[Any], **more: Any) -> Written:
        done = [await batch(self, [operation], **{**more, "once": None}) for operation in operations]
        results = tuple(result for each in done for result in each.results)
        return msgspec.structs.replace(done[-1], results=results)

    RegistryService.batch = torn  # type: ignore[method-assign]


BROKEN: dict[str, Callable[[], None]] = {
    "sound": lambda: None,
    "sequence": sequence,
    "stale-cache": stale_cache,
    "old-answers": old_answers,
    "torn-batch": torn_batch,
}


def main() -> int:
    BROKEN[sys.argv[1] if len(sys.argv) > 1 else "sound"]()
    try:
        return serving.serve(load_settings())
    except RegistryError as error:
        return say(error)


if __name__ == "__main__":
    sys.exit(main())
