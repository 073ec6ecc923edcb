"""Requests that were refused for who sent them, counted until they are written down: a bad token buys no fsync."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from universal_registry.kernel.world import World
from universal_registry.log.audit import Deed, deed

EVERY = 60.0
"""Seconds over which denials of one actor for one reason are one row."""

MOST_SORTS = 32
MOST_ROUTES = 3
_OTHERS = ("others", "various")


class _Count:
    """Denials of one sort."""

    def __init__(self) -> None:
        self.times = 0
        self.routes: list[str] = []


class Denials:
    """Counts per actor and reason; a row a minute for each, for at most MOST_SORTS of them and the rest together."""

    def __init__(self, world: World, record: Callable[[Sequence[Deed]], Awaitable[None]]) -> None:
        self._world = world
        self._record = record
        self._counts: dict[tuple[str, str], _Count] = {}
        self._since = 0.0
        self.total = 0

    def note(self, actor: str, reason: str, route: str) -> None:
        """One more. `route` is the method and the pattern of a path, never what a client wrote."""
        if not self._counts:
            self._since = self._world.monotonic()
        self.total += 1
        sort = (actor, reason)
        if sort not in self._counts and len(self._counts) >= MOST_SORTS:
            sort = _OTHERS
        count = self._counts.setdefault(sort, _Count())
        count.times += 1
        if route not in count.routes and len(count.routes) < MOST_ROUTES:
            count.routes.append(route)

    async def flush(self, *, now: bool = False) -> None:
        """Write down what has been counted for a minute, or `now` all of it. Raises StorageUnavailable: nothing is
        forgotten then."""
        if not self._counts or not (now or self._world.monotonic() - self._since >= EVERY):
            return
        taken, self._counts = self._counts, {}
        try:
            await self._record([self._deed(sort, count) for sort, count in taken.items()])
        except BaseException:
            self._give_back(taken)
            raise

    def _deed(self, sort: tuple[str, str], count: _Count) -> Deed:
        actor, reason = sort
        return deed(self._world, actor, "denied", reason, times=count.times, routes=count.routes)

    def _give_back(self, taken: dict[tuple[str, str], _Count]) -> None:
        for sort, count in taken.items():
            known = self._counts.setdefault(sort if len(self._counts) < MOST_SORTS else _OTHERS, _Count())
            known.times += count.times
            known.routes = list(dict.fromkeys([*known.routes, *count.routes]))[:MOST_ROUTES]
