"""Feeds the watchdog of the service manager: a sign of life goes out while each of the four workers gives one."""

from __future__ import annotations

from collections.abc import Callable

from universal_registry.observe.metrics import Gauges
from universal_registry.runner.ports import Alarm, Pulse
from universal_registry.runner.systemd import Notifier

WATCHED = ("propagation", "webhook", "streaming", "health")
TICK, STARTING = 1.0, 0.02


class WatchdogWorker:
    """Tells READY once all are at work, and from then on how much waits.

    `at_work`: whether each of the named workers ticks. `trouble`: why the daemon does not do its whole work, or
    nothing.
    """

    def __init__(
        self,
        notifier: Notifier,
        at_work: Callable[[tuple[str, ...]], bool],
        trouble: Callable[[], str],
        gauges: Callable[[], Gauges],
    ) -> None:
        self.alarm = Alarm()
        self._notifier = notifier
        self._at_work = at_work
        self._trouble = trouble
        self._gauges = gauges
        self._is_ready = False
        self._said = ""

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        while not pulse.ending():
            pulse.beat()
            self._tick()
            await self.alarm.wait(self._pause())

    def _pause(self) -> float:
        """Some signs of life fit into the time that the service manager waits for one."""
        if not self._is_ready:
            return STARTING
        return min(TICK, self._notifier.watchdog / 4) if self._notifier.watchdog else TICK

    def _tick(self) -> None:
        fields = {}
        if self._at_work(WATCHED):
            fields["WATCHDOG"] = "1"
            if not self._is_ready:
                fields["READY"] = "1"
        status = self._status() if self._is_ready or fields else "starting"
        if status != self._said:
            fields["STATUS"] = status
        if fields and self._notifier.tell(**fields):
            self._is_ready = self._is_ready or "READY" in fields
            self._said = status

    def _status(self) -> str:
        gauges = self._gauges()
        trouble = self._trouble() or ("" if gauges.db else "the database does not answer")
        counts = f"queue depth {gauges.queue_depth}, webhooks pending {gauges.webhooks_pending}"
        return f"{counts}; {trouble}" if trouble else counts
