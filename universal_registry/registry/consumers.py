"""Named consumers: readers of the log whose place the registry keeps. At least once: what was not acknowledged comes
again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from universal_registry.kernel.errors import Conflict, Invalid, NotFound
from universal_registry.kernel.world import World, utc_text
from universal_registry.log.audit import Deed, deed
from universal_registry.log.cursor import Cursor, parse_cursor
from universal_registry.registry.ports import LogReader
from universal_registry.registry.words import near, shown

MOST = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """`selector`: the JSON form of what it reads. `cursor`: everything up to there is acknowledged. Times are RFC 3339,
    UTC; `acked_at` None: nothing has been acknowledged yet."""

    name: str
    selector: dict[str, Any]
    cursor: str
    created_at: str
    created_by: str
    acked_at: str | None = None

    @property
    def place(self) -> Cursor:
        """Its cursor."""
        return parse_cursor(self.cursor)


class ConsumerStore(Protocol):
    """Where they are kept."""

    async def consumers(self) -> Sequence[Consumer]:
        """All, by name."""
        ...

    async def consumer(self, name: str) -> Consumer | None: ...

    async def keep(self, consumer: Consumer, told: Deed) -> None:
        """Add it, or put it in the place of the one of that name."""
        ...

    async def acknowledge(self, name: str, cursor: Cursor, at: str) -> bool:
        """Move its cursor, unless that would be backwards in the same history. Whether there is such a consumer."""
        ...

    async def remove_consumer(self, name: str, told: Deed) -> bool:
        """Whether there was one."""
        ...


class Consumers:
    """The verbs on them."""

    def __init__(self, store: ConsumerStore, log: LogReader, world: World) -> None:
        self._store = store
        self._log = log
        self._world = world

    async def all(self) -> list[Consumer]:
        """All, by name."""
        return list(await self._store.consumers())

    async def get(self, name: str) -> Consumer:
        """The one of that name. Raises NotFound with what may have been meant."""
        found = await self._store.consumer(name)
        if found is None:
            raise await self._missing(name)
        return found

    async def keep(self, name: str, selector: dict[str, Any], start: Cursor | None, *, actor: str) -> Consumer:
        """Make it, or change what it reads. `start`: the place to begin at, or to go to (None: its own; of a new one,
        the head). Raises Invalid, Conflict (too many), CursorMismatch."""
        if not _NAME.fullmatch(name):
            hint = "1 to 63 letters, digits and . _ -, a letter or digit first"
            raise Invalid(f"the consumer name {shown(name)} cannot be used", hint=hint)
        if start is not None:
            await self._log.check_cursor(start)
        known = {each.name: each for each in await self._store.consumers()}
        before = known.get(name)
        if before is None and len(known) >= MOST:
            raise Conflict(f"there are {MOST} consumers already", hint="remove those that nobody reads any more")
        now = utc_text(self._world.now())
        if before is None:
            cursor = start or (await self._log.head()).cursor
            kept = Consumer(name=name, selector=selector, cursor=str(cursor), created_at=now, created_by=actor)
        else:
            cursor = start or before.place
            kept = msgspec.structs.replace(before, selector=selector, cursor=str(cursor))
        if kept != before:
            action = "consumer.add" if before is None else "consumer.change"
            told = deed(self._world, actor, action, f"consumer {name}", selector=selector, cursor=kept.cursor)
            await self._store.keep(kept, told)
        return kept

    async def acknowledge(self, name: str, cursor: Cursor) -> Consumer:
        """Everything up to the cursor has been dealt with. One that is older than what was acknowledged changes
        nothing. Raises NotFound, CursorMismatch."""
        await self._log.check_cursor(cursor)
        if not await self._store.acknowledge(name, cursor, utc_text(self._world.now())):
            raise await self._missing(name)
        return await self.get(name)

    async def remove(self, name: str, *, actor: str) -> None:
        """Forget it. Raises NotFound."""
        told = deed(self._world, actor, "consumer.remove", f"consumer {name:.80}")
        if not await self._store.remove_consumer(name, told):
            raise await self._missing(name)

    async def _missing(self, name: str) -> NotFound:
        guesses = near(name, tuple(each.name for each in await self._store.consumers()))
        hint = f"did you mean {guesses[0]!r}?" if guesses else "`ureg consumer ls` lists them"
        return NotFound(f"there is no consumer {shown(name)}", hint=hint, did_you_mean=guesses)
