"""Keeping the change log short: what is past its time and needed by nobody goes, in small steps beside the writes.

First the horizon moves, in one transaction with a row of the audit trail that says so: from then on nobody relies on
what is behind it. Then the values and lines there go, step by step. Whatever ends it, the next pass goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from universal_registry.kernel.settings import HistorySettings
from universal_registry.kernel.world import World
from universal_registry.log.audit import deed
from universal_registry.log.horizon import Horizon
from universal_registry.registry.compaction import DEED, HistoryStore, checkpoint
from universal_registry.registry.history import newest_before
from universal_registry.registry.ports import LogReader
from universal_registry.registry.retention import Limits, Plan, Reader, limit, plan

YOUNG = timedelta(minutes=10)
"""Nothing younger goes, whatever the settings say: who follows the log closely never meets the horizon."""
EVERY_SECONDS = 3600.0
FIRST_SECONDS = 60.0
STEP = 256
"""Lines that a step looks at: a few milliseconds."""
_REST = 9.0
"""In the background it rests so many times as long as it worked."""
_LONGEST_REST = 5.0
_DAEMON = "daemon"


class Compaction:
    """One per opened store. `readers`: whoever reads the log. `background`: a daemon, which calls `tick` all the time;
    else nobody else is at the store."""

    def __init__(
        self,
        log: LogReader,
        store: HistoryStore,
        world: World,
        settings: HistorySettings,
        readers: Callable[[], Awaitable[Sequence[Reader]]],
        *,
        background: bool = False,
    ) -> None:
        self.settings = settings
        self.passes = self.values = self.lines = 0
        """Since the start: passes that came to their end, values dropped, lines removed."""
        self.kept: Mapping[str, int] = {}
        """As of the last look: lasting reader -> revisions that are past their time, and are there for its sake."""
        self._log = log
        self._store = store
        self._world = world
        self._readers = readers
        self._background = background
        self._busy = asyncio.Lock()
        self._due = world.monotonic() + FIRST_SECONDS
        self._working = False
        self._news: Callable[..., None] = lambda _event, **_fields: None

    def on_news(self, news: Callable[..., None]) -> None:
        """Call `news` with an event's name and fields when the horizon has moved."""
        self._news = news

    # --- in the background ---------------------------------------------------------------------------------------

    async def tick(self) -> float:
        """Do one step of what there is to do. Seconds until the next. Raises what the store raises."""
        async with self._busy:
            now = self._world.monotonic()
            if now >= self._due:
                self._due = now + EVERY_SECONDS
                if self.settings.compact:
                    await self._move(_DAEMON)
                self._working = True  # also what a pass before the start has left
            if not self._working:
                return self._due - now
            self._working = await self._step()
            worked = self._world.monotonic() - now
            return min(_LONGEST_REST, _REST * worked) if self._working else self._due - self._world.monotonic()

    async def _step(self) -> bool:
        """Whether there may be more."""
        dropped = await self._store.drop_values(STEP)
        removed = await self._store.remove_lines(STEP)
        self.values += dropped.gone
        self.lines += removed.gone
        more = dropped.more or removed.more
        self.passes += not more
        return more

    async def _move(self, actor: str) -> None:
        before, found = await self._log.horizon(), await self._plan()
        if (found.values, found.lines) == (before.values, before.lines):
            return
        after = Horizon(values=found.values, lines=before.lines, hash=before.hash, living=before.living)
        if found.lines > before.lines and (line := await self._log.line(found.lines, 0)) is not None:
            living = before.living + await self._store.born(before.lines, found.lines)
            after = Horizon(values=found.values, lines=found.lines, hash=line.hash, living=living)
        told = checkpoint(after)
        if await self._store.declare(before, after, deed(self._world, actor, DEED, "change log", **told)):
            self._news("history compacted", values=after.values, lines=after.lines, actor=actor)

    async def _plan(self) -> Plan:
        limits = await self._limits()
        found = plan(await self._log.horizon(), limits, await self._readers())
        self.kept = {each.name: limits.values - each.revision for each in found.kept_back if each.lasting}
        return found

    async def _limits(self) -> Limits:
        now, head, wanted = self._world.now(), (await self._log.head()).revision, self.settings
        old = await newest_before(self._log, now - YOUNG)

        async def past(days: float) -> int:
            return await newest_before(self._log, now - timedelta(days=days)) if days else 0

        return Limits(
            values=limit(head, await past(wanted.value_days), wanted.value_revisions, old),
            lines=limit(head, await past(wanted.line_days), wanted.line_revisions, old),
        )

    # --- what people ask -----------------------------------------------------------------------------------------

    async def look(self) -> dict[str, Any]:
        """`horizon` (values, lines) as it is, `size`, and `would`: where it would be now, and what would go. Reads all
        that would go."""
        found = await self._plan()
        would = {**_place(found), "gone": (await self._store.foresee(found.values, found.lines))._asdict()}
        return {**await self._state(found), "would": would}

    async def run(self, actor: str, seconds: float) -> dict[str, Any]:
        """Compact now, for about so many seconds. As `look` without `would`; `gone`: what went; `done`: all of it.
        Without a daemon free space is given back then."""
        until, went = self._world.monotonic() + seconds, (self.values, self.lines)
        async with self._busy:
            await self._move(actor)
            self._working = True
        while self._working and self._world.monotonic() < until:
            async with self._busy:
                began = self._world.monotonic()
                self._working = await self._step()
                worked = self._world.monotonic() - began
            await asyncio.sleep(worked if self._background else 0)
        if not self._working and not self._background:
            await self._store.give_back()
        gone = {"values": self.values - went[0], "lines": self.lines - went[1]}
        return {**await self._state(await self._plan()), "gone": gone, "done": not self._working}

    async def _state(self, found: Plan) -> dict[str, Any]:
        return {
            "horizon": _place(await self._log.horizon()),
            "head": (await self._log.head()).revision,
            "size": (await self._store.size())._asdict(),
            "kept_back": [{"name": each.name, "revision": each.revision} for each in found.kept_back],
        }


def _place(horizon: Horizon | Plan) -> dict[str, int]:
    return {"values": horizon.values, "lines": horizon.lines}
