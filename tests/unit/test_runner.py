"""The workers and their supervisor on a virtual clock: waits take no time, and every interval is exact."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import StorageFull, StorageUnavailable
from universal_registry.kernel.settings import Settings
from universal_registry.log.cursor import Head
from universal_registry.observe.health import Health
from universal_registry.observe.metrics import Gauges
from universal_registry.runner.ports import Alarm, Pulse
from universal_registry.runner.supervisor import Supervisor
from universal_registry.runner.systemd import Notifier
from universal_registry.runner.workers.health import HealthWorker
from universal_registry.runner.workers.keys import KeysWorker
from universal_registry.runner.workers.propagation import PropagationWorker
from universal_registry.runner.workers.streaming import StreamingWorker
from universal_registry.runner.workers.watchdog import WATCHED, WatchdogWorker
from universal_registry.runner.workers.webhook import WebhookWorker


class _Selector(selectors.SelectSelector):
    """Instead of waiting it lets time pass."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout:
            self.now += timeout
        assert found or timeout is not None, "everything waits for something that will not come"
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class VirtualWorld:
    """A World on the loop's clock."""

    START = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def chance(self) -> float:
        return 0.0

    def new_id(self) -> str:
        return "0" * 32

    def secret_bytes(self, count: int) -> bytes:
        return bytes(count)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def at(seconds: float) -> None:
    """Until the virtual clock shows this."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_at(seconds, reached.set_result, None)
    await reached


# --- the supervisor -------------------------------------------------------------------------------------------------


class Scripted:
    """A worker that does what it is told at each start."""

    def __init__(self, *lives: Callable[[Pulse, Alarm], Coroutine[Any, Any, None]]) -> None:
        self.alarm = Alarm()
        self.lives = list(lives)
        self.starts: list[float] = []

    async def run(self, pulse: Pulse) -> None:
        self.starts.append(asyncio.get_running_loop().time())
        await self.lives[min(len(self.starts), len(self.lives)) - 1](pulse, self.alarm)


async def good(pulse: Pulse, alarm: Alarm) -> None:
    while not pulse.ending():
        pulse.beat()
        await alarm.wait(1.0)


async def deaf(pulse: Pulse, alarm: Alarm) -> None:
    await asyncio.Event().wait()


async def faulty(pulse: Pulse, alarm: Alarm) -> None:
    raise ZeroDivisionError("oh")


def test_a_dead_worker_is_started_again_ever_later_and_shows_in_health() -> None:
    async def main() -> None:
        worker = Scripted(faulty, faulty, faulty, good)
        supervisor = Supervisor(VirtualWorld())
        supervisor.start("webhook", worker)
        await at(0.05)
        assert "webhook worker died" in supervisor.trouble()
        assert "ZeroDivisionError: oh" in supervisor.trouble()
        await at(10)
        assert worker.starts == pytest.approx([0.0, 0.1, 0.3, 0.7])
        (state,) = supervisor.states()
        assert (state.running, state.deaths, supervisor.trouble()) == (True, 3, "")
        assert await supervisor.stop(1.0) == []

    run(main())


def test_restarts_are_never_more_than_half_a_minute_apart_and_a_calm_life_counts_as_recovery() -> None:
    async def calm_then_faulty(pulse: Pulse, alarm: Alarm) -> None:
        for _ in range(70):
            pulse.beat()
            await alarm.wait(1.0)
        raise ZeroDivisionError

    async def main() -> None:
        worker = Scripted(*([faulty] * 12), calm_then_faulty, good)
        supervisor = Supervisor(VirtualWorld())
        supervisor.start("x", worker)
        await at(1000)
        gaps = [later - earlier for earlier, later in zip(worker.starts, worker.starts[1:], strict=False)]
        assert max(gaps[:12]) == pytest.approx(30.0)
        assert gaps[12] == pytest.approx(70.1)
        await supervisor.stop(1.0)

    run(main())


def test_a_worker_that_returns_of_its_own_accord_is_started_again() -> None:
    async def short(pulse: Pulse, alarm: Alarm) -> None:
        return

    async def main() -> None:
        worker = Scripted(short, good)
        supervisor = Supervisor(VirtualWorld())
        supervisor.start("x", worker)
        await at(5)
        assert len(worker.starts) == 2
        await supervisor.stop(1.0)

    run(main())


def test_a_stuck_worker_is_reported_and_no_longer_once_it_moves() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def sticky(pulse: Pulse, alarm: Alarm) -> None:
            await go_on.wait()
            await good(pulse, alarm)

        supervisor = Supervisor(VirtualWorld(), stuck_after=30.0)
        supervisor.start("propagation", Scripted(sticky))
        await at(29)
        assert supervisor.trouble() == ""
        await at(31)
        assert supervisor.trouble() == "the propagation worker has not moved for 31 s"
        go_on.set()
        await at(32)
        assert supervisor.trouble() == ""
        await supervisor.stop(1.0)

    run(main())


def test_a_worker_that_stays_stuck_is_cancelled_and_started_again() -> None:
    async def main() -> None:
        worker = Scripted(deaf, good)
        supervisor = Supervisor(VirtualWorld())
        supervisor.start("webhook", worker)
        await at(119)
        assert len(worker.starts) == 1
        await at(140)
        assert len(worker.starts) == 2
        (state,) = supervisor.states()
        assert (state.running, state.stuck, state.deaths, supervisor.trouble()) == (True, False, 1, "")
        assert state.last_error.startswith("it was stuck for 1")
        assert await supervisor.stop(1.0) == []

    run(main())


def test_a_worker_that_cannot_be_cancelled_makes_the_process_not_live() -> None:
    class Numb(Scripted):
        async def run(self, pulse: Pulse) -> None:
            self.starts.append(asyncio.get_running_loop().time())
            while not pulse.ending():
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async def main() -> None:
        supervisor = Supervisor(VirtualWorld())
        supervisor.start("webhook", Numb())

        async def head() -> Head:
            return Head("0" * 12, 1, bytes(32))

        health = Health(
            head=head, troubles=(), unready=supervisor.trouble, world=VirtualWorld(), workers=supervisor.states
        )
        await at(100)
        assert health.live().ok
        assert (await health.ready()).reason == "the webhook worker has not moved for 100 s"
        assert (await health.db()).ok
        await at(151)
        assert health.live().reason == "the webhook worker has not moved for 151 s"
        assert await supervisor.stop(1.0) == ["webhook"]

    run(main())


def test_the_end_is_asked_for_and_only_the_deaf_are_cancelled() -> None:
    async def main() -> None:
        supervisor = Supervisor(VirtualWorld())
        supervisor.start("good", Scripted(good))
        supervisor.start("deaf", Scripted(deaf))
        await at(3.5)
        assert await supervisor.stop(5.0) == ["deaf"]
        assert asyncio.get_running_loop().time() == pytest.approx(8.5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_worker_between_two_lives_ends_at_once_too() -> None:
    async def main() -> None:
        supervisor = Supervisor(VirtualWorld())
        supervisor.start("x", Scripted(faulty))
        await at(20)
        before = asyncio.get_running_loop().time()
        assert await supervisor.stop(5.0) == []
        assert asyncio.get_running_loop().time() == before

    run(main())


# --- the engine's workers -------------------------------------------------------------------------------------------


class Clockwork:
    """An engine of scripted answers that notes when it was asked."""

    def __init__(self, *, jobs: Sequence[float] = (), more: Sequence[bool] = (), due: float = 1.0) -> None:
        self.jobs = list(jobs)
        self.more = list(more)
        self.due = due
        self.unsettled = False
        self.idle = True
        self.full: StorageUnavailable | None = None
        self.planned_at: list[float] = []
        self.taken_at: list[float] = []
        self.settled_at: list[float] = []
        self.sent: list[float] = []
        self.stopped = False
        self.wake: Callable[[], None] = lambda: None

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await self.settle()
        self.stopped = True

    async def plan(self) -> bool:
        self.planned_at.append(self._time())
        return self.more.pop(0) if self.more else False

    def take(self) -> list[float]:
        self.taken_at.append(self._time())
        taken, self.jobs = self.jobs, []
        return taken

    async def run(self, job: float) -> None:
        await at(self._time() + job)
        self.sent.append(self._time())
        self.unsettled = True

    def let_rest(self, seconds: float) -> None: ...

    async def settle(self) -> None:
        if self.full is not None:
            raise self.full
        self.settled_at.append(self._time())
        self.unsettled = False

    def next_wake(self) -> float:
        return self.due

    def on_news(self, callback: Callable[..., None]) -> None:
        self.news = callback

    def on_wake(self, callback: Callable[[], None]) -> None:
        self.wake = callback

    def on_ready(self, callback: Callable[[], None]) -> None:
        self.ready = callback

    def on_plan(self, callback: Callable[[], None]) -> None:
        self.wake_planner = callback


def supervised(worker: Any) -> Supervisor:
    supervisor = Supervisor(VirtualWorld())
    supervisor.start("worker", worker)
    return supervisor


def test_planning_follows_each_ring_and_at_least_each_second_until_there_is_no_more() -> None:
    async def main() -> None:
        engine = Clockwork(more=[True, True, False, False, True])
        worker = PropagationWorker(engine)
        supervisor = supervised(worker)
        await at(1.5)
        worker.alarm.ring()
        engine.wake_planner()
        await at(2.0)
        assert engine.planned_at == pytest.approx([0, 0, 0, 1.0, 1.5, 1.5])
        await supervisor.stop(1.0)

    run(main())


def test_what_ends_together_is_settled_together() -> None:
    async def main() -> None:
        engine = Clockwork(jobs=[0.2, 0.2, 0.2, 0.7])
        supervisor = supervised(WebhookWorker(engine, VirtualWorld(), Alarm()))
        await at(0.5)
        assert engine.settled_at == pytest.approx([0.2])
        await at(0.9)
        assert engine.settled_at == pytest.approx([0.2, 0.7])
        await supervisor.stop(1.0)

    run(main())


def test_a_wake_is_answered_at_once_and_a_due_time_is_kept() -> None:
    async def main() -> None:
        engine = Clockwork(due=0.3)
        planning = Alarm()
        supervisor = supervised(WebhookWorker(engine, VirtualWorld(), planning))
        await at(0.1)
        engine.wake()
        await at(0.2)
        assert engine.taken_at == pytest.approx([0.0, 0.1])
        assert await planning.wait(0) is False
        await at(0.45)
        assert engine.taken_at == pytest.approx([0.0, 0.1, 0.4])
        assert await planning.wait(0) is True
        await supervisor.stop(1.0)

    run(main())


def test_what_is_due_but_cannot_be_done_is_looked_at_ever_more_rarely() -> None:
    async def main() -> None:
        engine = Clockwork(due=0.0)
        supervisor = supervised(WebhookWorker(engine, VirtualWorld(), Alarm()))
        await at(100)
        assert 95 < len(engine.taken_at) < 115
        engine.wake()
        await at(100.005)
        assert engine.taken_at[-1] == pytest.approx(100)
        await supervisor.stop(1.0)

    run(main())


def test_nothing_is_sent_while_nothing_can_be_written_down() -> None:
    async def main() -> None:
        engine = Clockwork(jobs=[0.1])
        supervisor = supervised(WebhookWorker(engine, VirtualWorld(), Alarm()))
        engine.full = StorageFull("no space left")
        await at(5)
        assert engine.sent == pytest.approx([0.1])
        engine.jobs = [0.1]
        await at(10)
        assert engine.jobs == [0.1]
        engine.full = None
        await at(15)
        assert len(engine.sent) == 2
        assert engine.unsettled is False
        await supervisor.stop(1.0)

    run(main())


def test_draining_lets_the_quick_end_gives_up_the_slow_and_starts_nothing() -> None:
    async def main() -> None:
        engine = Clockwork(jobs=[3.0, 99.0])
        worker = WebhookWorker(engine, VirtualWorld(), Alarm())
        supervisor = supervised(worker)
        await at(1)
        await supervisor.stop(1.0)
        engine.jobs = [0.0]
        assert await worker.drain(10.0) == 1
        assert engine.sent == pytest.approx([3.0])
        assert engine.stopped
        assert engine.jobs == [0.0]
        assert asyncio.get_running_loop().time() == pytest.approx(11.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_fault_in_one_delivery_does_not_end_the_worker() -> None:
    class Faulty(Clockwork):
        async def run(self, job: float) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        engine = Faulty(jobs=[0.0])
        supervisor = supervised(WebhookWorker(engine, VirtualWorld(), Alarm()))
        await at(5)
        assert supervisor.states()[0].deaths == 0
        await supervisor.stop(1.0)

    run(main())


# --- the health worker ----------------------------------------------------------------------------------------------


class Body:
    """A service whose database can be taken away."""

    def __init__(self) -> None:
        self.gone = False
        self.end = "ureg-anchor:1"
        self.last = False
        self.seconds: list[float] = []
        self.checked_at: list[float] = []

    async def gauges(self) -> Gauges:
        if self.gone:
            raise StorageUnavailable("gone")
        return Gauges(db=True, queue_depth=7)

    async def check(self) -> str:
        self.checked_at.append(asyncio.get_running_loop().time())
        return "gone" if self.gone else "ok"

    async def every_second(self, *, last: bool = False) -> None:
        if self.gone:
            raise StorageUnavailable("gone")
        self.seconds.append(asyncio.get_running_loop().time())
        self.last = last

    async def anchor(self) -> str:
        if self.gone:
            raise StorageUnavailable("gone")
        return self.end


def written(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())


def test_metrics_are_written_every_three_seconds_and_health_is_checked_every_minute(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "m"
        body = Body()
        supervisor = supervised(HealthWorker(body, Settings(home=tmp_path), path, VirtualWorld()))
        for second in range(1, 200):
            await at(second + 0.5)
            age = VirtualWorld().now() - datetime.fromisoformat(written(path)["metrics.updated_at"])
            assert age == timedelta(seconds=(second + 0.5) % 3)
        assert body.checked_at == pytest.approx([0, 60, 120, 180])
        await supervisor.stop(1.0)

    run(main())


def test_a_lost_database_shows_within_one_write_and_comes_back_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "m"
        body = Body()
        worker = HealthWorker(body, Settings(home=tmp_path), path, VirtualWorld())
        supervisor = supervised(worker)
        await at(1)
        body.gone = True
        await at(4)
        assert written(path)["health.db"] == "0"
        assert written(path)["health.queue_depth"] == "7"
        body.gone = False
        await at(7)
        assert written(path)["health.db"] == "1"
        await supervisor.stop(1.0)
        await worker.finish()
        assert written(path)["health.db"] == "0"
        assert body.last

    run(main())


def test_tokens_and_denials_have_their_turn_each_second_and_wait_for_a_lost_database(tmp_path: Path) -> None:
    async def main() -> None:
        body = Body()
        supervisor = supervised(HealthWorker(body, Settings(home=tmp_path), tmp_path / "m", VirtualWorld()))
        await at(10.5)
        assert body.seconds == pytest.approx(list(range(11)))
        body.gone = True
        await at(20.5)
        body.gone = False
        await at(22.5)
        assert body.seconds[11:] == pytest.approx([21, 22])
        assert supervisor.states()[0].deaths == 0
        await supervisor.stop(1.0)

    run(main())


def test_the_log_is_anchored_with_each_check_when_something_has_changed(tmp_path: Path) -> None:
    async def main() -> None:
        body = Body()
        worker = HealthWorker(body, Settings(home=tmp_path), tmp_path / "m", VirtualWorld())
        said: list[tuple[float, object]] = []
        worker._log.info = lambda event, **fields: said.append((VirtualWorld().monotonic(), fields.get("anchor")))  # type: ignore[method-assign]
        supervisor = supervised(worker)
        await at(130)
        body.end = "ureg-anchor:2"
        await at(250)
        body.gone, body.end = True, "ureg-anchor:3"
        await at(310)
        await supervisor.stop(1.0)
        assert [each for each in said if each[1]] == [(0.0, "ureg-anchor:1"), (180.0, "ureg-anchor:2")]

    run(main())


def test_other_intervals_hold_from_the_next_turn_on(tmp_path: Path) -> None:
    async def main() -> None:
        body = Body()
        worker = HealthWorker(body, Settings(home=tmp_path), tmp_path / "m", VirtualWorld())
        supervisor = supervised(worker)
        await at(10)
        worker.settings = Settings(home=tmp_path, health_interval=2.0)
        await at(70)
        assert body.checked_at[:4] == pytest.approx([0, 60, 62, 64])
        await supervisor.stop(1.0)

    run(main())


def test_a_folder_that_cannot_be_written_does_not_end_the_worker(tmp_path: Path) -> None:
    async def main() -> None:
        supervisor = supervised(HealthWorker(Body(), Settings(home=tmp_path), tmp_path / "no" / "m", VirtualWorld()))
        await at(10)
        assert supervisor.states()[0].deaths == 0
        (tmp_path / "no").mkdir()
        await at(20)
        assert written(tmp_path / "no" / "m")["health.db"] == "1"
        await supervisor.stop(1.0)

    run(main())


# --- the streaming worker -------------------------------------------------------------------------------------------


def test_what_streams_carried_is_stored_every_three_seconds_and_at_the_end() -> None:
    class Traffic:
        def __init__(self) -> None:
            self.stored_at: list[float] = []
            self.full = False

        is_behind = False

        async def pump(self) -> None:
            """Nobody watches."""

        async def store_traffic(self) -> None:
            if self.full:
                raise StorageFull("no space left")
            self.stored_at.append(VirtualWorld().monotonic())

    async def main() -> None:
        traffic = Traffic()
        supervisor = supervised(StreamingWorker(traffic, VirtualWorld()))
        await at(10)
        assert traffic.stored_at == pytest.approx([3, 6, 9])
        traffic.full = True
        await at(20)
        traffic.full = False
        await at(22)
        assert supervisor.states()[0].deaths == 0
        await supervisor.stop(1.0)
        assert traffic.stored_at == pytest.approx([3, 6, 9, 21, 22])

    run(main())


def test_the_streaming_worker_is_woken_for_what_was_not_handed_out_yet() -> None:
    class Behind:
        is_behind = False
        pumped = 0

        async def pump(self) -> None:
            self.pumped += 1

        async def store_traffic(self) -> None:
            """Nothing was carried."""

    async def main() -> None:
        streams = Behind()
        worker = StreamingWorker(streams, VirtualWorld())
        supervisor = supervised(worker)
        await at(0.1)
        before = streams.pumped
        worker.on_commit()
        await at(0.2)
        assert streams.pumped == before
        streams.is_behind = True
        worker.on_commit()
        await at(0.3)
        assert streams.pumped == before + 1
        await supervisor.stop(1.0)

    run(main())


def test_without_streams_the_streaming_worker_keeps_its_time_and_is_never_stuck() -> None:
    async def main() -> None:
        supervisor = supervised(StreamingWorker(None, VirtualWorld()))
        await at(100)
        (state,) = supervisor.states()
        assert (state.word, state.deaths, state.silent < 2) == ("running", 0, True)
        assert await supervisor.stop(1.0) == []

    run(main())


# --- keys -----------------------------------------------------------------------------------------------------------


class Keyholder:
    """Keys with something to do at given times."""

    def __init__(self, *pauses: float | Exception) -> None:
        self.pauses = list(pauses)
        self.ticks: list[float] = []
        self.wake: Callable[[], None] = lambda: None

    async def tick(self) -> float:
        self.ticks.append(asyncio.get_running_loop().time())
        pause = self.pauses.pop(0) if self.pauses else 60.0
        if isinstance(pause, Exception):
            raise pause
        return pause

    def on_work(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def on_news(self, news: Callable[..., None]) -> None:
        news("key seals", kid="12345678")


def test_keys_are_looked_after_when_there_is_something_to_do() -> None:
    async def main() -> None:
        keys = Keyholder(0.0, 0.0, 60.0, 60.0)
        supervisor = supervised(KeysWorker(keys, VirtualWorld()))
        await at(119)
        assert keys.ticks == [0, 0, 0, 60]
        keys.wake()
        await at(121)
        assert keys.ticks == [0, 0, 0, 60, 119]
        await supervisor.stop(1)

    run(main())


def test_trouble_with_keys_ends_nothing() -> None:
    async def main() -> None:
        trouble = StorageUnavailable("gone")
        keys = Keyholder(trouble, trouble, 60.0)
        supervisor = supervised(KeysWorker(keys, VirtualWorld()))
        await at(30)
        assert keys.ticks == [0, 5, 10]
        await supervisor.stop(1)

    run(main())


# --- the watchdog ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stuck", WATCHED)
def test_the_watchdog_is_fed_only_while_each_of_the_four_workers_ticks(stuck: str, tmp_path: Path) -> None:
    async def late(pulse: Pulse, alarm: Alarm) -> None:
        await at(3)  # its first turn takes long, as a recovery does
        while asyncio.get_running_loop().time() < 100:
            pulse.beat()
            await alarm.wait(1.0)
        await asyncio.Event().wait()

    async def main(manager: socket.socket) -> None:
        async def told(until: float) -> str:
            """All that comes to that moment."""
            found: list[str] = []
            while (now := asyncio.get_running_loop().time()) < until:
                await at(min(until, now + 1))
                with suppress(BlockingIOError):
                    while True:
                        found.append(manager.recv(4096).decode())
            return "\n".join(found)

        supervisor = Supervisor(VirtualWorld(), stuck_after=30.0)
        for name in WATCHED:
            supervisor.start(name, Scripted(late if name == stuck else good))
        notifier = Notifier(str(tmp_path / "notify"), watchdog=60.0)
        watchdog = WatchdogWorker(notifier, supervisor.at_work, supervisor.trouble, lambda: Gauges(db=True))
        supervisor.start("watchdog", watchdog)
        assert await told(2.9) == "STATUS=starting"
        assert "READY=1" in await told(4)
        assert (await told(129.5)).count("WATCHDOG=1") > 100
        await told(134)
        silence = await told(215)  # until its supervisor has given it up
        assert "WATCHDOG" not in silence
        assert f"STATUS=queue depth 0, webhooks pending 0; the {stuck} worker has not moved for 60 s" in silence
        assert await supervisor.stop(1.0) == [stuck]

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        run(main(manager))
