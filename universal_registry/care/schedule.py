"""The backups that a daemon makes by the clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from universal_registry.care.backup import Made, make_backup
from universal_registry.care.kept import keep_newest, newest
from universal_registry.kernel.errors import RegistryError, StorageUnavailable
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.security.keyring import Keyring
from universal_registry.storage.durable import unwritable

_LOOK_SECONDS = 60.0
_LONG = timedelta(hours=6)


class Schedule:
    """Makes the backup that is due, and keeps the newest. `settings` may be replaced. `keyring`: the keys that seal by
    then. `history`: the incarnation of the registry, whose backups alone are counted and removed."""

    def __init__(self, settings: Settings, world: World, keyring: Callable[[], Keyring], history: str) -> None:
        self.settings = settings
        self._world = world
        self._keyring = keyring
        self._history = history
        self._began: datetime | None = None
        self._failed: tuple[datetime, str] | None = None
        self._news: Callable[..., None] = lambda _event, **_fields: None

    def on_news(self, news: Callable[..., None]) -> None:
        """Call this with an event's name and fields when a backup was made."""
        self._news = news

    def due_in(self) -> float | None:
        """Seconds until the next one; None: never. Raises StorageUnavailable."""
        if self.settings.backup_folder is None:
            return None
        kept = newest(self.settings.backup_folder, self._world.now(), self._history)
        if kept is None:
            return 0.0
        interval = timedelta(hours=self.settings.backup_interval_hours)
        return max(0.0, (interval - (self._world.now() - kept.at)).total_seconds())

    def age(self) -> float | None:
        """Seconds since the newest one was made; None: there is none, or its folder cannot be read."""
        try:
            folder, now = self.settings.backup_folder, self._world.now()
            kept = newest(folder, now, self._history) if folder is not None else None
        except StorageUnavailable:
            return None  # `trouble` says so
        return (now - kept.at).total_seconds() if kept else None

    def trouble(self) -> str:
        """Why the backup that is due is not there, in one line; empty: it is, or none is to be made."""
        if self.settings.backup_folder is None:
            return ""
        if self._failed is not None:
            since, why = self._failed
            return f"no backup is made since {since.isoformat(timespec='seconds')}: {why}"
        if self._began is not None and self._world.now() - self._began > _LONG:
            return f"the backup that was begun at {self._began.isoformat(timespec='seconds')} does not end"
        return ""

    async def tick(self) -> float:
        """Make the one that is due, if one is. Seconds until the next look. Raises what the stores raise; until one is
        made again, `trouble` says so."""
        try:
            due = self.due_in()
            if due == 0.0:
                made = await self._make()
                self._news("backup made", file=str(made.path), revision=made.header.point.revision, bytes=made.bytes)
        except RegistryError as error:
            since = self._failed[0] if self._failed is not None else self._world.now()
            self._failed = since, error.message
            raise
        finally:
            self._began = None
        self._failed = None
        return _LOOK_SECONDS if not due else min(due, _LOOK_SECONDS)

    async def _make(self) -> Made:
        """Then those that are more than are to be kept are removed: never before it is there."""
        folder = self.settings.backup_folder
        assert folder is not None
        self._began = self._world.now()
        try:
            # Not those above it: where they are missing, a disk may not be mounted.
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise unwritable(error, folder) from None
        made = await make_backup(self.settings, self._keyring(), self._world, folder)
        keep_newest(folder, self._history, self.settings.backup_keep, self._world.now())
        return made
