"""Is the daemon alive, is its database there, is it ready? What `/health/*`, the metrics file and `status` say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.world import World
from universal_registry.log.cursor import Head

OK = "ok"
FAILING = "failing"
HOPELESS = 150.0
"""Seconds of silence after which a worker is not coming back by itself: longer than any deadline of ours, and than its
supervisor takes to start it again. Only a restart of the process helps."""


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as health shows it. `silent`: seconds since it last showed that it is at work."""

    name: str
    running: bool
    stuck: bool
    deaths: int
    silent: float
    last_error: str

    @property
    def word(self) -> str:
        """Its state in a word."""
        return "stuck" if self.stuck else "running" if self.running else "restarting"


class HealthSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found. `status`: `ok` or `failing`, then `reason` says why in one line.

    `revision`: the newest one, None when the database could not be read. `checked_at`: RFC 3339 UTC, milliseconds.
    """

    status: str
    checked_at: str
    reason: str = ""
    revision: int | None = None
    milliseconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status == OK


class Health:
    """Looks when it is asked: nothing is cached, so an answer is never older than the question.

    `head`: a real read of the database. `troubles`: each says in one line what keeps the database from being used, or
    nothing. `unready`: why the daemon does not do its whole work yet (migration, workers), or nothing. `workers`: those
    of the daemon.
    """

    def __init__(
        self,
        *,
        head: Callable[[], Awaitable[Head]],
        troubles: tuple[Callable[[], str], ...],
        unready: Callable[[], str],
        world: World,
        workers: Callable[[], Sequence[WorkerState]] = tuple,
    ) -> None:
        self._head = head
        self._troubles = troubles
        self._unready = unready
        self.workers = workers
        self._world = world

    def live(self) -> HealthSnapshot:
        """The process answers, therefore it lives; unless a worker of it is beyond help. The database is not asked:
        whether that is there, a restart does not change."""
        lost = [each for each in self.workers() if each.stuck and each.silent > HOPELESS]
        return self._snapshot(f"the {lost[0].name} worker has not moved for {lost[0].silent:.0f} s" if lost else "")

    async def db(self) -> HealthSnapshot:
        """Whether the database can be read and written now."""
        begun = self._world.monotonic()
        reason, revision = "", None
        try:
            revision = (await self._head()).revision
        except RegistryError as error:
            reason = error.message
        for trouble in self._troubles:
            reason = reason or trouble()
        return self._snapshot(reason, revision, (self._world.monotonic() - begun) * 1000)

    async def ready(self) -> HealthSnapshot:
        """Whether the daemon does its whole work: database, migration, workers."""
        found = await self.db()
        reason = self._unready()
        return self._snapshot(reason, found.revision, found.milliseconds) if found.ok and reason else found

    def _snapshot(self, reason: str = "", revision: int | None = None, milliseconds: float = 0.0) -> HealthSnapshot:
        return HealthSnapshot(
            status=FAILING if reason else OK,
            reason=reason,
            revision=revision,
            milliseconds=round(milliseconds, 3),
            checked_at=self._world.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        )


def file_taken_away(path: Path) -> Callable[[], str]:
    """A trouble for `Health`: the file at `path` is no longer the one that stands there now.

    An open database goes on answering from a file that was deleted or replaced; what it then stores is lost.
    """
    opened = path.stat()

    def trouble() -> str:
        try:
            found = path.stat()
        except OSError as error:
            return f"{path.name} cannot be found any more: {error.strerror}"
        same = (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)
        return "" if same else f"{path.name} was replaced by another file while in use"

    return trouble
