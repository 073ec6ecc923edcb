"""A clock that goes back while what was decided before is still on its way into the store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from universal_registry.propagation.lanes.lane import DeliveryState, Settlements

Stage = Any
HOUR = timedelta(hours=1)


async def test_a_failure_that_is_being_stored_when_the_clock_goes_back_does_not_wait_an_hour(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.start()
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down = {"one"}
    apply, stepped = stage.lanes.apply, []

    async def applied(settlements: Settlements) -> None:
        waits = any(row.state is DeliveryState.WAITING for row in settlements.upserts)
        if waits and not stepped:
            stepped.append(stage.world.moment)
            stage.world.moment -= HOUR
            await stage.engine.plan()  # the other worker looks at the clock meanwhile
        await apply(settlements)

    monkeypatch.setattr(stage.lanes, "apply", applied)
    await stage.alias("a")
    await stage.settle()
    assert stepped
    stage.targets.down = set()
    await stage.wait(60)
    assert stage.targets.names("one") == ["a"]
