"""The wall clock is set by an hour both ways, to 1970 and to 2038 (R9): in the middle of a wait, with the breaker open,
in a running daemon and over its end. Nothing is lost, nothing waits for the hour to pass, and there is no storm."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import child_crash
import pgserver
import pytest
from pressure import Daemon, Inbox, Progress, is_at_rest, lines_in, send, wait_for

from universal_registry.app import App, init, open_app
from universal_registry.client.listen import State, flaky
from universal_registry.environment import load_settings
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.engine import clock_steps
from universal_registry.propagation.lanes.lane import Breaker
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.verbs.targets import TargetOptions
from universal_registry.transports import webhook

HOUR = timedelta(hours=1)
STEPS = {
    "an hour back": child_crash.START - HOUR,
    "an hour on": child_crash.START + HOUR,
    "1970": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
    "2038": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
}
FEW, MANY = 2, 8
"""Deliveries: too few failures to open the breaker, and enough."""


class TwoClocks(child_crash.StageWorld):
    """A wall clock that may be set, and a steady one that nobody can set."""

    def __init__(self) -> None:
        super().__init__()
        self.steady = 1000.0

    def monotonic(self) -> float:
        return self.steady


class Far:
    """A target that is down until it is up."""

    name = "webhook"

    def __init__(self) -> None:
        self.is_up = False
        self.attempts = 0
        self.got: set[str] = set()

    async def send(self, envelope: Envelope) -> Outcome:
        self.attempts += 1
        if not self.is_up:
            return Failed(reason="connection refused", status=None, milliseconds=1.0)
        self.got.add(dict(envelope.headers)["webhook-id"])
        return Accepted(status=200, milliseconds=1.0)

    async def close(self) -> None:
        """Nothing is open."""


class Run:
    """Daemons on one registry, one after the other, and their clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.world = TwoClocks()
        self.far = Far()
        self.app: App
        self._stage: child_crash.Stage

    async def start(self) -> None:
        self.app = await open_app(self.settings, world=self.world)
        assert self.app.engine is not None
        await self.app.engine.start()
        self._stage = child_crash.Stage(self.app, self.world, child_crash.Diary(self.settings.home))

    async def die(self) -> None:
        """As a kill would have it: nothing is settled or given back."""
        await self.app.close()
        self._stage.diary.close()

    async def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.steady += 1
            await self._stage.settle(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    environ = {"REGISTRY_HOME": str(tmp_path / "home")}
    if request.param == "postgresql":
        server: pgserver.Server = request.getfixturevalue("postgres")
        environ |= server.environment(server.database("clock").name)
    made = Run(load_settings(environ=environ))
    init(made.settings, made.world)
    monkeypatch.setattr(webhook, "WebhookTransport", lambda *_: made.far)
    return made


async def behind(run: Run, count: int) -> None:
    """So many deliveries have been tried in vain, and wait."""
    await run.start()
    await run.app.control.add_target(
        "one", "http://127.0.0.1:9/one", options=TargetOptions(seal="never"), select="kind=alias",
        actor=child_crash.OPERATOR,
    )  # fmt: skip
    operations = [
        {"op": "put", "kind": "alias", "name": f"n{number}", "spec": {"command": "x"}} for number in range(count)
    ]
    await run.app.service.batch(operations, actor=child_crash.OPERATOR)
    await run.wait(3)
    (lane,) = await run.app.lanes.lanes()
    assert (lane.breaker, lane.rows) == (Breaker.OPEN if count == MANY else Breaker.CLOSED, count)


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("count", [FEW, MANY], ids=["in a wait", "breaker open"])
async def test_the_clock_is_set(run: Run, count: int, step: str, restart: bool) -> None:
    await behind(run, count)
    before = run.far.attempts
    if restart:
        await run.die()
    run.world.moment = STEPS[step]
    if restart:
        run.world.steady += 5
        await run.start()
    await run.wait(40)  # a lease of the daemon before has run out by then, whatever the clock says
    assert run.far.attempts - before <= 2 * count + 8, "no storm"
    run.far.is_up = True
    await run.wait(130)
    rows = await run.app.lanes.deliveries()
    await run.die()
    assert rows == [], "nothing waits for the clock"
    assert len(run.far.got) == count, "nothing is lost"


async def test_when_a_clock_that_goes_back_is_not_noticed_it_is_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_steps, "_CLOCK_STEP", timedelta(days=40000))
    await behind(run, FEW)
    run.world.moment = STEPS["an hour back"]
    run.far.is_up = True
    await run.wait(170)
    rows = await run.app.lanes.deliveries()
    await run.die()
    assert len(rows) == FEW


# --- a real daemon, whose clock is moved from outside -----------------------------------------------------------------


class MovedWorld(SystemWorld):
    """The real world, with the clock of the daemon."""

    def __init__(self) -> None:
        self.moved = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.moved


def faketime() -> str:
    """The library that moves a program's clock; skips where there is none."""
    found = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if not found:
        pytest.skip("libfaketime is not here (Debian: faketime)")
    return found[0]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    library, told = faketime(), tmp_path / "clock"
    told.write_text("+0\n")
    made = Daemon(tmp_path / "home")
    made.environ |= {
        "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(told), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    yield made
    made.process.kill()
    made.process.wait()


@pytest.mark.slow
def test_the_clock_of_a_real_daemon_is_moved_under_load(daemon: Daemon, tmp_path: Path) -> None:
    progress, world = Progress(), MovedWorld()
    inbox = Inbox("flaky", progress, behaviour=flaky(0.3), world=world)
    try:
        daemon.start()
        with daemon.client() as client:
            target = {"name": inbox.name, "url": inbox.url, "secret": inbox.secret, "select": "kind=alias"}
            client.request("POST", "/v1/-/targets", json=target)
            for turn, hours in enumerate((0, 1, -1, 0)):
                for number in range(40):
                    send(client, {f"t{turn}-{number}": "x"})
                (tmp_path / "clock").write_text(f"{hours * 3600:+d}\n")
                world.moved = timedelta(hours=hours)
            expected = lines_in(client)
            wait_for(lambda: inbox.arrived() >= expected, "delivered")
            wait_for(lambda: is_at_rest(client), "settled")
        assert len(expected) == 160
        assert inbox.count(State.REPEATED) == 0
        assert daemon.stop() == 0, daemon.last_words()
        said = daemon.places.home.with_name("home.stderr").read_text()
        assert said.count("the clock went back") == 1, "from an hour on to an hour back, in one step"
    finally:
        inbox.close()
