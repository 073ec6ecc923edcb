"""The daemon, put together: an opened registry as the runner sees it, and its server, streams and workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from universal_registry.app import App, open_app
from universal_registry.care.schedule import Schedule
from universal_registry.environment import child_environment, environment, load_settings, runtime_dir
from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import SystemWorld, World
from universal_registry.observe.metrics import Gauges
from universal_registry.propagation.verbs.target_keys import drop_ended
from universal_registry.runner.ports import DAEMON, Duty
from universal_registry.storage.home import prepare_home

if TYPE_CHECKING:
    from universal_registry.observe.logs import Logging
    from universal_registry.runner.detached import Started, Stopped


class _Served:
    """An opened registry as the runner sees it."""

    def __init__(self, app: App, logging: Logging, history: str) -> None:
        from universal_registry.api.server import ApiServer
        from universal_registry.api.stream import StreamFront
        from universal_registry.api.tls import tls_from

        assert app.engine is not None
        settings = app.settings
        self.app = app
        self.engine = app.engine
        self.others = app.others
        self.streams = StreamFront(app.api, app.service, app.traffic, settings)
        self.tls = tls_from(settings)
        self.keys = app.keys
        self.compaction = app.compaction
        self.backups = Schedule(settings, app.world, lambda: app.sealer.keyring, history)
        app.figures.backup_age, app.figures.backup_trouble = self.backups.age, self.backups.trouble
        self.peers = app.links
        self._logging = logging
        self._seal_logs(settings)
        self.server = ApiServer(
            app.api,
            socket_path=settings.socket or Places(settings.home).socket,
            listen=settings.listen,
            short_folder=runtime_dir(),
            streams=self.streams,
            tls=self.tls,
        )

    def on_commit(self, callback: Callable[[], None]) -> None:
        self.app.service.on_commit(callback)

    async def revision(self) -> int:
        return (await self.app.registry.head()).revision

    async def gauges(self) -> Gauges:
        return await self.app.figures.gauges()

    async def check(self) -> str:
        found = await self.app.health.db()
        if found.ok:
            with suppress(StorageUnavailable):  # the next check says so, and tries again
                await drop_ended(self.app.service)
        return found.reason or found.status

    async def every_second(self, *, last: bool = False) -> None:
        await self.app.tokens.load()
        await self.app.denials.flush(now=last)
        if self.tls is not None:
            self.tls.keep_fresh()

    async def anchor(self) -> str:
        return str(await self.app.audit.anchor())

    def apply(self, settings: Settings) -> None:
        self.engine.apply(settings)
        self.app.control.apply(settings)
        self.app.keys.settings = settings.encryption
        self.app.compaction.settings = settings.history
        self.backups.settings = settings
        self.streams.apply(settings)
        if self.tls is not None:
            self.tls.keep_fresh(force=True)
        self._seal_logs(settings)

    def _seal_logs(self, settings: Settings) -> None:
        from universal_registry.observe.sealed_lines import sealed_line

        sealing = settings.encryption.encrypt_logs
        self._logging.seal_with((lambda line: sealed_line(line, self.app.sealer)) if sealing else None)

    async def close(self) -> None:
        await self.app.close()


def serve(settings: Settings, *, notes: Sequence[str] = (), world: World | None = None) -> int:
    """`ureg serve`: the daemon, in the foreground, until a signal ends it; then 0. A home is made where there is none.

    `notes`: what was odd about the settings (`Loaded.warnings`), for the log. Raises StoreLocked or Conflict (exit 5)
    when another daemon has this home or the port.
    """
    world = world or SystemWorld()
    began = world.monotonic()
    from universal_registry.observe.logs import Log
    from universal_registry.runner.daemon import Plan
    from universal_registry.runner.daemon import serve as run
    from universal_registry.runner.systemd import Notifier

    prepare_home(Places(settings.home), world, files=settings.database is None)
    events = Log("api")

    def unexpected(error: BaseException, trace_id: str) -> None:
        events.error("a request met a fault of ours", error, trace_id=trace_id)

    async def open_service(duty: Duty, logging: Logging) -> _Served:
        app = await open_app(settings, world=world, create=True, role=DAEMON, duty=duty, unexpected=unexpected)
        logging.redactor.add(*app.sealer.keyring.keys.values())
        return _Served(app, logging, (await app.registry.head()).incarnation)

    def reread() -> Settings:
        # What a running daemon cannot change stays; flags of its start are among that.
        return load_settings({"home": settings.home, "listen": settings.listen, "socket": settings.socket})

    plan = Plan(
        settings=settings, world=world, open_service=open_service, reread=reread, notes=notes, began=began,
        notifier=Notifier.of(environment()),
    )  # fmt: skip
    return run(plan)


def up(settings: Settings) -> Started:
    """`ureg up`: a daemon in the background, unless one runs; returns when it is ready. Raises why it did not start."""
    from universal_registry.runner.detached import up as start

    return start(settings, child_environment(settings))


def down(settings: Settings) -> Stopped:
    """`ureg down`: end the daemon of this home, if one runs, and wait for it. Raises Conflict, Forbidden, TimedOut."""
    from universal_registry.runner.detached import down as stop

    return stop(settings)
