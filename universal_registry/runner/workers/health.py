"""The health monitor: checks the databases, keeps `metrics/registry.metrics` fresh, and anchors the hash chains."""

from __future__ import annotations

from pathlib import Path

from universal_registry.kernel.errors import RegistryError, StorageUnavailable
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import World
from universal_registry.observe import metrics
from universal_registry.observe.logs import Log
from universal_registry.observe.metrics import Gauges
from universal_registry.runner.ports import Alarm, Pulse, Service

TICK = 1.0


class HealthWorker:
    """`settings` may be replaced while it runs."""

    def __init__(self, service: Service, settings: Settings, path: Path, world: World) -> None:
        self.settings = settings
        self._service = service
        self._path = path
        self._world = world
        self._gauges = Gauges(db=False)
        self._status = "ok"
        self._write_trouble = self._trouble = ""
        self._anchored = ""
        self.alarm = Alarm()
        self._log = Log("health")

    @property
    def gauges(self) -> Gauges:
        """As they were last written."""
        return self._gauges

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        check_at = write_at = self._world.monotonic()
        while not pulse.ending():
            now = self._world.monotonic()
            await self._every_second()
            checking = now >= check_at
            if checking:
                check_at = now + self.settings.health_interval
                await self._check()
            if checking or now >= write_at:
                write_at = now + self.settings.metrics_interval
                await self.write()
            pulse.beat()
            await self.alarm.wait(min(TICK, max(0.0, min(check_at, write_at) - self._world.monotonic())))

    async def finish(self) -> None:
        """The last words of a clean stop: denials, an anchor, and a metrics file that says that nothing runs."""
        await self._every_second(last=True)
        await self._anchor()
        await self.write(stopped=True)

    async def write(self, *, stopped: bool = False) -> None:
        """Replace the metrics file. `stopped`: it says that nothing runs any more."""
        try:
            self._gauges = await self._service.gauges()
        except RegistryError:
            self._gauges = self._gauges.down()  # counters keep the last values that were known
        try:
            metrics.write(self._path, self._gauges.down() if stopped else self._gauges, self._world.now())
            self._write_trouble = ""
        except RegistryError as error:
            if str(error) != self._write_trouble:
                self._write_trouble = str(error)
                self._log.warning("metrics not written", reason=str(error))

    async def _check(self) -> None:
        status = await self._service.check()
        if status != self._status:
            say = self._log.info if status == "ok" else self._log.error
            say("health changed", status=status, before=self._status)
        self._log.debug("health", status=status)
        self._status = status
        await self._anchor()

    async def _anchor(self) -> None:
        """The ends of the hash chains go to the log, which is outside of the stores: `ureg audit verify --anchor`."""
        try:
            anchor = await self._service.anchor()
        except RegistryError:
            return  # the check has said what is wrong
        if anchor != self._anchored:
            self._log.info("audit anchor", anchor=anchor)
        self._anchored = anchor

    async def _every_second(self, *, last: bool = False) -> None:
        try:
            await self._service.every_second(last=last)
            self._trouble = ""
        except StorageUnavailable as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.warning("tokens and denials wait for the database", reason=str(error))
