"""`ureg serve`: one process, its workers, its server; in the foreground until a signal stops it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from universal_registry.kernel.errors import ReadOnlyStore, RegistryError
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import World
from universal_registry.observe.health import WorkerState
from universal_registry.observe.logs import Log, Logging
from universal_registry.runner.ports import Duty, Service
from universal_registry.runner.shutdown import Signals, outlive_the_terminal
from universal_registry.runner.supervisor import Supervisor
from universal_registry.runner.systemd import Notifier
from universal_registry.runner.workers.backup import BackupWorker
from universal_registry.runner.workers.compaction import CompactionWorker
from universal_registry.runner.workers.health import HealthWorker
from universal_registry.runner.workers.keys import KeysWorker
from universal_registry.runner.workers.peers import PeersWorker
from universal_registry.runner.workers.propagation import PropagationWorker
from universal_registry.runner.workers.streaming import StreamingWorker
from universal_registry.runner.workers.watch import WatchWorker
from universal_registry.runner.workers.watchdog import WatchdogWorker
from universal_registry.runner.workers.webhook import WebhookWorker

READY = "ready"
_WORKER_GRACE = 5.0
_SERVER_GRACE = 2.0
_SWITCH_SECONDS = 0.0005


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the composition root hands to `serve`.

    `open_service` opens the store as its one owner; it is given what tells health how the daemon does.
    `reread` reads the settings again, for SIGHUP. `notes`: what was odd about the settings. `began`: monotonic seconds.
    `notifier`: the service manager that wants to hear how we do; None: there is none.
    """

    settings: Settings
    world: World
    open_service: Callable[[Duty, Logging], Awaitable[Service]]
    reread: Callable[[], Settings]
    notes: Sequence[str] = ()
    began: float = 0.0
    notifier: Notifier | None = None


def serve(plan: Plan) -> int:
    """Run until a signal; 0 after a clean stop. Raises what keeps it from starting (Conflict: port or store in use)."""
    outlive_the_terminal()
    places = Places(plan.settings.home)
    for folder in (places.log.parent, places.metrics.parent, places.address.parent):
        _make_folder(folder)
    logging = Logging(plan.settings.log_level, path=places.log)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_Daemon(plan, places, logging).run())
    except RegistryError as error:
        # The caller says it on stderr, in one line.
        logging.write_to_file("not started", error)
        raise
    except Exception as error:
        logging.write_to_file("ended by a fault of ours", error)
        raise
    finally:
        logging.close()


class _Daemon:
    """A running daemon."""

    def __init__(self, plan: Plan, places: Places, logging: Logging) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._places = places
        self._logging = logging
        self._world = plan.world
        self._log = Log("runner")
        self._supervisor = Supervisor(plan.world)
        self._is_up = False
        self._service: Service | None = None
        self._health: HealthWorker | None = None

    async def run(self) -> int:
        """Start, wait for a signal, stop."""
        signals = Signals(self._on_hangup)
        signals.install()
        for note in self._plan.notes:
            self._log.warning("settings", note=note)
        service = self._service = await self._plan.open_service(self, self._logging)
        try:
            webhook = await self._start(service)
            name = await signals.stopped()
            return await self._stop(service, webhook, name)
        finally:
            for path in (self._places.address, _pid_file(self._places)):
                path.unlink(missing_ok=True)
            await self._supervisor.stop(_WORKER_GRACE)
            await service.close()

    async def _start(self, service: Service) -> WebhookWorker:
        engine = service.engine
        await engine.start()
        propagation = PropagationWorker(engine)
        service.on_commit(propagation.alarm.ring)
        webhook = WebhookWorker(engine, self._world, propagation.alarm)
        self._health = HealthWorker(service, self._settings, self._places.metrics, self._world)
        # An address that is taken ends the start before anything is sent.
        addresses = await service.server.start()
        self._supervisor.start("propagation", propagation)
        self._supervisor.start("webhook", webhook)
        streaming = StreamingWorker(service.streams, self._world)
        service.on_commit(streaming.on_commit)
        self._supervisor.start("streaming", streaming)
        peers = PeersWorker(service.peers, self._world)
        service.on_commit(peers.alarm.ring)
        if service.peers.why_renewed:
            self._log.warning("a new name for peers", reason=service.peers.why_renewed)
        self._supervisor.start("peers", peers)
        self._supervisor.start("health", self._health)
        self._supervisor.start("keys", KeysWorker(service.keys, self._world))
        self._supervisor.start("backup", BackupWorker(service.backups, self._world))
        self._supervisor.start("compaction", CompactionWorker(service.compaction, self._world))
        if service.others is not None:
            self._supervisor.start("watch", WatchWorker(service.others))
        tune_interpreter()
        self._is_up = True
        await self._health.write()  # whoever waits for `ready` finds it there
        write_whole(_pid_file(self._places), f"{os.getpid()}\n")
        write_whole(self._places.address, addresses.lines())
        took = (self._world.monotonic() - self._plan.began) * 1000
        self._log.info(
            READY,
            pid=os.getpid(),
            addresses=addresses.lines().split(),
            revision=await service.revision(),
            ms=round(took, 1),
        )
        if (notifier := self._plan.notifier) is not None:
            health = self._health
            watchdog = WatchdogWorker(notifier, self._supervisor.at_work, self.unready, lambda: health.gauges)
            self._supervisor.start("watchdog", watchdog)
        return webhook

    async def _stop(self, service: Service, webhook: WebhookWorker, name: str) -> int:
        """Accept nothing, plan nothing, let what is under way end, write it down."""
        self._log.info("stopping", signal=name, in_flight=len(webhook.running))
        self._is_up = False
        if self._plan.notifier is not None:
            self._plan.notifier.stopping(self._settings.drain_timeout + _SERVER_GRACE + 2 * _WORKER_GRACE)
        until = self._world.monotonic() + self._settings.drain_timeout
        self._places.address.unlink(missing_ok=True)
        service.peers.part()
        await service.server.stop(min(_SERVER_GRACE, self._settings.drain_timeout))
        late = await self._supervisor.stop(_WORKER_GRACE)
        given_up = await webhook.drain(max(0.0, until - self._world.monotonic()))
        if self._health is not None:
            await self._health.finish()
        revision = await _revision_or_none(service)
        self._log.info("stopped", signal=name, revision=revision, deliveries_given_up=given_up, late_workers=late)
        return 0

    def unready(self) -> str:
        """As Duty."""
        return self._supervisor.trouble() if self._is_up else "the daemon is starting or stopping"

    def workers(self) -> Sequence[WorkerState]:
        """As Duty."""
        return self._supervisor.states()

    def _on_hangup(self) -> None:
        if self._plan.notifier is None:
            self._reload()
        else:
            self._plan.notifier.reloading(self._world.monotonic(), self._reload)

    def _reload(self) -> None:
        """SIGHUP. Whatever is wrong with the new settings or files, the daemon goes on with the old ones."""
        try:
            self._logging.reopen()
            self._settings = self._plan.reread()
        except RegistryError as error:
            self._log.error("not reloaded: the old settings and files stay", error)
            return
        self._logging.level(self._settings.log_level)
        if self._health is not None:
            self._health.settings = self._settings
            self._health.alarm.ring()
        if self._service is not None:
            self._service.apply(self._settings)
        self._log.info("reloaded", log_level=self._settings.log_level)


def tune_interpreter() -> None:
    """Let the garbage collector look less often, and never again at what the start has made: what a request makes is
    freed by its reference counts, and walking it in search of cycles cost a tenth of a write. And let a thread that has
    done its fsync have the interpreter sooner: by default it waits up to 5 ms, an eighth of a write's time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(_SWITCH_SECONDS)


def write_whole(path: Path, text: str) -> None:
    """A small file that is there whole or not at all. Raises ReadOnlyStore."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ReadOnlyStore(f"{path} cannot be written: {error.strerror}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadOnlyStore(
            f"{folder} cannot be made: {error.strerror}", hint="choose a writable folder: --home or REGISTRY_HOME"
        ) from None


def _pid_file(places: Places) -> Path:
    return places.address.with_name("ureg.pid")


async def _revision_or_none(service: Service) -> int | None:
    try:
        return await service.revision()
    except RegistryError:
        return None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        from uvloop import new_event_loop
    except ImportError:  # no wheel for this platform
        return asyncio.new_event_loop
    return new_event_loop
