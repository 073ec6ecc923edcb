"""A settle commit whose caller is cancelled: what it held is stored by the next one, and not forgotten."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from universal_registry.propagation.lanes.lane import DeliveryState, Settlements
from universal_registry.storage.lanes_sqlite import SqliteLanes

STAGE = Path(__file__).resolve().parents[1] / "integration" / "engine" / "conftest.py"


class HeldStore(SqliteLanes):
    """Its commits wait for a gate, if there is one."""

    gate: asyncio.Event | None = None

    async def apply(self, settlements: Settlements) -> None:
        if self.gate is not None:
            reached, self.gate = self.gate, asyncio.Event()
            reached.set()
            await self.gate.wait()
        await super().apply(settlements)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Any]:
    """The engine on a stage, as the tests of the engine have it."""
    spec = importlib.util.spec_from_file_location("engine_stage", STAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Stage(tmp_path)
    made.lanes = HeldStore(made.propagation)
    await made.start()
    yield made
    await made.close()


async def test_a_cancelled_settle_forgets_nothing(stage: Any) -> None:
    await stage.target("t")
    await stage.route("r", "t")
    await stage.settle()
    stage.targets.down.add("t")
    await stage.alias("a")
    while await stage.engine.plan():
        pass
    if stage.engine.unsettled:
        await stage.engine.settle()
    (job,) = stage.engine.take()
    await stage.engine.run(job)

    reached = stage.lanes.gate = asyncio.Event()
    settling = asyncio.get_running_loop().create_task(stage.engine.settle())
    await reached.wait()
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert await stage.lanes.deliveries() == []

    stage.lanes.gate = None
    await stage.engine.stop()
    assert [row.state for row in await stage.lanes.deliveries()] == [DeliveryState.WAITING]
    stage.targets.down.clear()
    await stage.start()
    await stage.until(lambda: stage.targets.names("t") == ["a"])
