"""What is still to be sent shows in every number that people look at, inside one revision too."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from universal_registry.cli.targets import TARGET_COLUMNS
from universal_registry.cli.top import Look, frame
from universal_registry.kernel.grid import table_of
from universal_registry.observe.denials import Denials
from universal_registry.observe.figures import FiguresReader
from universal_registry.observe.health import Health
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.engine.window import WINDOW
from universal_registry.propagation.lanes.lane import WHOLE, Position
from universal_registry.propagation.lanes.outcome_counts import Tally
from universal_registry.propagation.views.inventory import UNKNOWN_LAG

Stage = Any  # the class of the fixture, which pytest alone can import
MANY = 3000


class NoEngine:
    """What a command without a daemon knows beyond the store: nothing."""

    def positions(self) -> dict[str, Position]:
        return {}

    def look(self) -> None:
        """Nobody is there."""

    async def lag(self) -> int:
        return UNKNOWN_LAG


async def numbers(stage: Stage, engine: Any) -> dict[str, Any]:
    """The numbers of `status`, the drift of the target "one", and its figures."""
    control = PropagationControl(
        stage.service, stage.lanes, {"webhook": stage.targets}, engine, stage.world, stage.settings
    )
    health = Health(head=stage.service.log.head, troubles=(), unready=str, world=stage.world)
    reader = FiguresReader(
        stage.service, stage.lanes, engine, health, Tally(), Denials(stage.world, stage.registry), store="sqlite"
    )
    found, figures = await control.status(), await reader.read()
    assert figures.stored is not None
    (target,) = found["targets"]
    (lag,) = figures.stored.targets
    assert figures.stored.gauges.queue_depth == found["health"]["queue_depth"]
    return {
        "queue": found["health"]["queue_depth"],
        "unread": found["unread"],
        "warnings": found["warnings"],
        "in_sync": target["drift"]["in_sync"],
        "target_unread": target["drift"]["unread"],
        "lines": found["unread_lines"],
        "target_lines": target["drift"]["unread_lines"],
        "lag": lag.lag_revisions,
        "age": lag.lag_seconds,
    }


async def shown_unread(stage: Stage) -> tuple[int, int, str]:
    """Under UNREAD in `ureg target ls`, in `ureg top`, and in its first lines."""
    control = PropagationControl(stage.service, stage.lanes, {}, NoEngine(), stage.world, stage.settings)
    status = await control.status()
    titles, row = (line.split() for line in table_of(status["targets"], TARGET_COLUMNS, None))
    lines = frame(Look(0.0, False, status, []), None)
    top = dict(zip(lines[-2].split(), lines[-1].split(), strict=False))
    queue = next(line for line in lines if line.startswith("queue "))
    return int(row[titles.index("UNREAD")]), int(top["UNREAD"]), queue.split("unread ")[1]


async def test_tables_count_the_lines_and_not_the_revisions(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("r", "one")
    await stage.settle()
    await stage.wait(10)
    assert await shown_unread(stage) == (0, 0, "0 lines")
    await stage.aliases(44)
    assert await shown_unread(stage) == (44, 44, "44 lines"), "one revision has them all"


@pytest.mark.parametrize("daemon", [True, False])
async def test_a_backlog_inside_one_revision_is_seen(stage: Stage, daemon: bool) -> None:
    await stage.target("one")
    await stage.route("r", "one")
    await stage.settle()
    await stage.wait(10)
    lines = {"lines": 0, "target_lines": 0}
    done = {"queue": 0, "unread": 0, "warnings": [], "in_sync": True, "target_unread": 0, "lag": 0, "age": 0.0, **lines}
    assert await numbers(stage, stage.engine) == done
    gate = stage.targets.gates["one"] = asyncio.Event()
    real, left = stage.targets.send, [50]

    async def send(envelope: Any) -> Any:
        if left[0]:
            left[0] -= 1
            gate.set()
        else:
            gate.clear()
        return await real(envelope)

    stage.targets.send = send
    await stage.aliases(MANY)
    await stage.until(lambda: len(stage.targets.names("one")) == 50)
    stage.world.moment += timedelta(seconds=30)
    lane = await stage.lane("one")
    assert 0 < lane.position.seq < WHOLE, "the lane has come to a place inside the revision"
    found = await numbers(stage, stage.engine if daemon else NoEngine())
    assert (found["unread"], found["target_unread"], found["lag"], found["in_sync"]) == (1, 1, 1, False)
    assert found["age"] >= 30
    left = MANY - 1 - lane.position.seq
    assert (found["lines"], found["target_lines"]) == (left, left)
    if daemon:
        assert left <= found["queue"] <= left + WINDOW, "every line that has not arrived counts, planned or not"
    else:
        said = f"target one: the newest revision has not been read to the end ({left} lines): ureg up"
        assert found["warnings"] == [said]
    del stage.targets.gates["one"]
    stage.targets.send = real
    gate.set()
    await stage.until(lambda: len(stage.targets.names("one")) == MANY)
    await stage.wait(20)
    assert await numbers(stage, stage.engine) == done
    assert await numbers(stage, NoEngine()) == done


async def test_what_no_daemon_has_read_is_seen(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("r", "one")
    await stage.settle()
    await stage.wait(10)
    for number in range(44):
        await stage.alias(f"a{number}")
    found = await numbers(stage, NoEngine())
    assert (found["queue"], found["unread"], found["target_unread"], found["lag"]) == (0, 44, 44, 44)
    assert (found["lines"], found["target_lines"]) == (44, 44)
    assert not found["in_sync"]
